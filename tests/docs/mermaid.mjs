// usage: node mermaid.mjs FILE.md...
// Exits 1, naming file, line and reason, unless Mermaid itself parses every diagram and has every icon it names.
import { readFileSync } from 'node:fs'
import { argv, exit } from 'node:process'
import { fileURLToPath } from 'node:url'
import mermaid from 'mermaid'
import { mermaidBlocks } from './blocks.mjs'

const pack = JSON.parse(readFileSync(fileURLToPath(import.meta.resolve('@iconify-json/logos/icons.json')), 'utf8'))
const icons = new Set([...Object.keys(pack.icons), ...Object.keys(pack.aliases ?? {})])

const problems = []
let count = 0
for (const file of argv.slice(2)) {
  let blocks = []
  try {
    blocks = mermaidBlocks(file)
  } catch (error) {
    problems.push(error.message)
  }
  for (const { line, text } of blocks) {
    count += 1
    try {
      await mermaid.parse(text)
    } catch (error) {
      problems.push(`${file}:${line}: ${error.message}`)
    }
    for (const [, name] of text.matchAll(/\(logos:([^)]*)\)/g)) {
      if (!icons.has(name)) {
        problems.push(`${file}:${line}: the icon pack "logos" has no icon "${name}"`)
      }
    }
  }
}
problems.forEach((problem) => console.error(problem))
console.log(`${count} diagrams, ${problems.length} problems`)
exit(problems.length === 0 ? 0 : 1)
