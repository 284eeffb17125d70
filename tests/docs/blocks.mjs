// The Mermaid blocks of a Markdown file: what the check parses and what the renderer draws.
import { readFileSync } from 'node:fs'

const FENCE = /^\s*(`{3,}|~{3,})\s*(\S*)/
const IMAGE = /!\[[^\]]*\]\(([^)\s]+\.svg)\)/

/**
 * Reads every ```mermaid block of a file.
 *
 * Returns [{file, line, text, image}]: `line` is the one-based line of the diagram's first line, and `image` the
 * SVG that the document shows above the block for viewers without the icons (as written in its link), or null.
 * Throws Error on a fence that is never closed.
 */
export function mermaidBlocks(file) {
  const blocks = []
  let open = null
  let image = null
  readFileSync(file, 'utf8').split('\n').forEach((text, index) => {
    const fence = FENCE.exec(text)
    if (open === null && fence) {
      open = { mark: fence[1], mermaid: fence[2] === 'mermaid', line: index + 2, lines: [] }
    } else if (open !== null && fence && fence[2] === '' && fence[1].startsWith(open.mark)) {
      if (open.mermaid) {
        blocks.push({ file, line: open.line, text: open.lines.join('\n') + '\n', image })
        image = null
      }
      open = null
    } else if (open !== null) {
      open.lines.push(text)
    } else {
      image = IMAGE.exec(text)?.[1] ?? (text.startsWith('#') ? null : image)
    }
  })
  if (open !== null) {
    throw new Error(`${file}:${open.line - 1}: this fence is never closed`)
  }
  return blocks
}
