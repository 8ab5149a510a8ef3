// User messages of the tests of the bridge, in pages and in the harness: a message is made from a short
// specification, and known by a description of what was received.

(() => {
  const LONGEST_SHOWN = 200

  function digest (codes) {
    let hash = 0x811c9dc5
    for (const code of codes) {
      hash = Math.imul(hash ^ code, 0x01000193) >>> 0
    }
    return hash.toString(16)
  }

  function * filler (tag, length) {
    for (let at = 0; at < length; at += 1) {
      yield at < tag.length ? tag.charCodeAt(at) : 97 + (at * 7 + length) % 26
    }
  }

  // `kind`: 'text' or 'bytes'; a text has some characters of two bytes, and `length` of them.
  globalThis.makePayload = ({ kind, length, tag }) => {
    const codes = Uint8Array.from(filler(tag, length))
    if (kind === 'bytes') {
      return codes
    }
    return new TextDecoder().decode(codes).replaceAll('q', 'é')
  }

  globalThis.describePayload = (data) => {
    if (typeof data === 'string') {
      return data.length <= LONGEST_SHOWN ? data : `${data.slice(0, 40)}… ${data.length} ${digest(Array.from(data, (c) => c.charCodeAt(0)))}`
    }
    const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength)
    return `bytes ${bytes.length} ${new TextDecoder().decode(bytes.slice(0, 40))} ${digest(bytes)}`
  }
})()
