// The running signaling server that a program is run against.

import { canConnect } from './ports.mjs'

export function readUrl (text) {
  if (!/^ws:\/\/127\.0\.0\.1:\d{2,5}\/?$/.test(text ?? '')) {
    throw new Error('--url takes the address of a signaling server on this machine, such as ws://127.0.0.1:8010')
  }
  return text.replace(/\/$/, '')
}

// Ends the program if nothing listens there.
export async function requireServer (url) {
  if (!(await canConnect(Number(new URL(url).port)))) {
    console.error(`nothing listens at ${url}`)
    process.exit(1)
  }
}
