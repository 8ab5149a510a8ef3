// Contents of signaling frames of every generation: session descriptions and candidates are plain text in
// all.

function plain ({ opcode, payloadData }) {
  return opcode === 1 ? payloadData : Buffer.from(payloadData, 'base64').toString('latin1')
}

export function carries (frame) {
  const text = plain(frame)
  if (text.includes('a=setup:actpass')) {
    return 'offer'
  }
  if (/a=setup:(active|passive)/.test(text)) {
    return 'answer'
  }
  return text.includes('candidate:') ? 'candidate' : 'other'
}

function tally (records, arrow) {
  const counts = new Map()
  for (const { frame } of records.filter((record) => record.frame && record.arrow === arrow)) {
    const kind = carries(frame)
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  return [...counts].map(([kind, count]) => `${count} ${kind}`).join(', ') || 'nothing'
}

// Progress of a peer's signaling, in one line.
export function summarize (trace) {
  return `sent ${tally(trace.records, '->')}; received ${tally(trace.records, '<-')}`
}

// A JSON object for each frame and each event of a peer.
export function dump ({ trace, name, spec }, since) {
  return trace.records.map(({ at, arrow, frame, event }) => {
    const about = { ms: at - since, peer: name, netflux: spec.version }
    if (!frame) {
      const { kind, at: ignored, ...fields } = event
      return { ...about, event: kind, ...fields }
    }
    const { opcode, payloadData } = frame
    const data = opcode === 1 ? { text: payloadData } : { hex: Buffer.from(payloadData, 'base64').toString('hex') }
    return { ...about, dir: arrow === '->' ? 'sent' : 'received', carries: carries(frame), ...data }
  })
}
