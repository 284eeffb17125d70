// usage: node render.mjs FILE.md...        (needs Chromium; $CHROMIUM names it, "chromium" is the default)
// Draws each diagram that its document also shows as an image, with the AWS icons, into that SVG; with --png=FOLDER
// draws every diagram as FOLDER/<file>-<line>.png too, to look at.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { argv, env } from 'node:process'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { mermaidBlocks } from './blocks.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const library = pathToFileURL(join(here, 'node_modules/mermaid/dist/mermaid.min.js')).href
const pack = readFileSync(join(here, 'node_modules/@iconify-json/logos/icons.json'), 'utf8')

// Generic families only: an SVG shown as an image cannot load a font.
const config = {
  startOnLoad: false,
  theme: 'neutral',
  fontFamily: 'Helvetica, Arial, sans-serif',
  htmlLabels: false,
}

function page(text) {
  return `<!doctype html><meta charset="utf-8"><style>body { margin: 16px; background: white }</style>
<div id="out"></div><script src="${library}"></script><script>
(async () => {
  const out = document.getElementById('out')
  try {
    mermaid.initialize(${JSON.stringify(config)})
    mermaid.registerIconPacks([{ name: 'logos', icons: ${pack} }])
    out.innerHTML = (await mermaid.render('diagram', ${JSON.stringify(text)})).svg
    const svg = out.firstElementChild
    // Without a size, a browser shows an SVG image at 300 by 150 pixels.
    const [, , width, height] = svg.getAttribute('viewBox').split(' ').map(Number)
    svg.setAttribute('width', Math.ceil(width))
    svg.setAttribute('height', Math.ceil(height))
    svg.setAttribute('style', 'background: white')
    out.dataset.svg = btoa(unescape(encodeURIComponent(new XMLSerializer().serializeToString(svg))))
  } catch (error) {
    out.dataset.error = error.message
  }
})()
</script>`
}

function chromium(profile, ...options) {
  return execFileSync(env.CHROMIUM ?? 'chromium', [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update', '--hide-scrollbars',
    '--virtual-time-budget=20000', `--user-data-dir=${profile}`, ...options,
  ], { encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'ignore'] })
}

const pngs = argv.find((argument) => argument.startsWith('--png='))?.slice('--png='.length)
const profile = mkdtempSync(join(tmpdir(), 'diagrams-'))
try {
  for (const file of argv.slice(2).filter((argument) => !argument.startsWith('--'))) {
    for (const { line, text, image } of mermaidBlocks(file)) {
      if (image === null && pngs === undefined) continue
      const html = join(profile, 'page.html')
      writeFileSync(html, page(text))
      const dom = chromium(profile, '--dump-dom', pathToFileURL(html).href)
      const encoded = /data-svg="([^"]*)"/.exec(dom)
      if (!encoded) throw new Error(`${file}:${line}: ${/data-error="([^"]*)"/.exec(dom)?.[1] ?? 'no drawing'}`)
      const svg = Buffer.from(encoded[1], 'base64').toString('utf8')
      if (image !== null) {
        const hash = createHash('sha256').update(text).digest('hex')
        writeFileSync(resolve(dirname(file), image), `${svg}\n<!-- drawn from Mermaid source ${hash} -->\n`)
        console.log(`${file}:${line} -> ${image}`)
      }
      if (pngs !== undefined) {
        mkdirSync(pngs, { recursive: true })
        const [width, height] = ['width', 'height'].map((name) => Number(new RegExp(` ${name}="(\\d+)"`).exec(svg)[1]))
        const png = resolve(pngs, `${basename(file, '.md')}-${line}.png`)
        writeFileSync(html, `<!doctype html><style>body { margin: 0 }</style>${svg}`)
        chromium(profile, `--window-size=${width},${height}`, `--screenshot=${png}`, pathToFileURL(html).href)
        console.log(`${file}:${line} -> ${png} ${width}x${height}`)
      }
    }
  }
} finally {
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
}
