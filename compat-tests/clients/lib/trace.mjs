// Log of one peer: frames on its signaling sockets and reports of its page, in order. Printed in shortened
// form when a scenario fails; `records` has all.

const LONGEST = 160
const MOST_LINES = 60

function shorten (text) {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}… (${text.length})` : text
}

function readFrame ({ opcode, payloadData }) {
  return opcode === 1 ? payloadData : `hex ${Buffer.from(payloadData, 'base64').toString('hex')}`
}

function describe ({ arrow, frame, event }) {
  if (frame) {
    return `${arrow} ${shorten(readFrame(frame))}`
  }
  const { kind, at, ...fields } = event
  const text = Object.entries(fields).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(' ')
  return `* ${kind} ${shorten(text)}`
}

export class Trace {
  records = []

  frame (arrow, frame) {
    this.records.push({ at: Date.now(), arrow, frame })
  }

  event (event) {
    this.records.push({ at: Date.now(), event })
  }

  // The beginning and the end explain a failure.
  print (since) {
    const lines = this.records.map((record) => `${String(record.at - since).padStart(7)} ms  ${describe(record)}`)
    if (lines.length <= MOST_LINES) {
      return lines
    }
    const half = MOST_LINES / 2
    return [...lines.slice(0, half), `           … ${lines.length - MOST_LINES} lines left out`, ...lines.slice(-half)]
  }
}
