// The log of one peer: frames on its signaling sockets and what its page reported, in order, for people to read when
// a scenario fails.

const LONGEST = 160
const MOST_LINES = 60

function shorten (text) {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}… (${text.length})` : text
}

function readFrame ({ opcode, payloadData }) {
  return opcode === 1 ? payloadData : `hex ${Buffer.from(payloadData, 'base64').toString('hex')}`
}

export class Trace {
  #lines = []

  frame (arrow, frame) {
    this.#add(`${arrow} ${shorten(readFrame(frame))}`)
  }

  event ({ kind, at, ...fields }) {
    const text = Object.entries(fields).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(' ')
    this.#add(`* ${kind} ${shorten(text)}`)
  }

  #add (text) {
    this.#lines.push({ at: Date.now(), text })
  }

  // The beginning and the end are what explains a failure.
  print (since) {
    const lines = this.#lines.map(({ at, text }) => `${String(at - since).padStart(7)} ms  ${text}`)
    if (lines.length <= MOST_LINES) {
      return lines
    }
    const half = MOST_LINES / 2
    return [...lines.slice(0, half), `           … ${lines.length - MOST_LINES} lines left out`, ...lines.slice(-half)]
  }
}
