// Script of the pages that use the signaller protocol: the contract of signallerd's client library,
// written independently, and `pipes`, which the scenarios call.

(() => {
  // `listen` and `connect` resolve when the server has admitted the client, and reject otherwise. A
  // listener may signal at once: the connector receives it all. `signal` takes text or bytes. `close` ends
  // it for both.
  class Signaller {
    onsignal = () => {}
    onclose = () => {}
    #url
    #socket

    constructor (url) {
      this.#url = url
    }

    listen (handle) {
      return this.#open(`listen/${handle}`)
    }

    connect (handle) {
      return this.#open(`connect/${handle}`)
    }

    signal (frame) {
      this.#socket.send(frame)
    }

    close () {
      this.#socket.close(1000)
    }

    #open (path) {
      return new Promise((resolve, reject) => {
        const socket = new WebSocket(`${this.#url}/${path}`)
        socket.binaryType = 'arraybuffer'
        socket.addEventListener('open', () => resolve())
        socket.addEventListener('message', ({ data }) => this.onsignal(data))
        socket.addEventListener('close', ({ code, reason }) => {
          reject(new Error(`${path} was refused`))
          this.onclose({ code, reason })
        })
        this.#socket = socket
      })
    }
  }

  const signaller = new Signaller(new URLSearchParams(location.search).get('signaling'))
  const arrived = []
  const waiting = []
  const take = (item) => {
    arrived.push(item)
    while (arrived.length > 0 && waiting.length > 0) {
      waiting.shift()(arrived.shift())
    }
  }
  let closed
  const ended = new Promise((resolve) => { closed = resolve })
  signaller.onsignal = (data) => take(typeof data === 'string' ? data : [...new Uint8Array(data)])
  signaller.onclose = closed

  // The server limits the length of messages and their number in one direction: candidates share messages.
  const LONGEST = 1000

  function inBatches (candidates) {
    const batches = []
    let batch = []
    for (const candidate of candidates) {
      if (JSON.stringify({ candidates: [...batch, candidate] }).length > LONGEST) {
        batches.push({ candidates: batch })
        batch = []
      }
      batch.push(candidate)
    }
    return batch.length > 0 ? [...batches, { candidates: batch }] : batches
  }

  // Both ends of a data channel, all of whose signaling passes the pipe. Resolves with the other end's
  // message.
  async function talk (isFirst, text) {
    const connection = new RTCPeerConnection({ iceServers: [] })
    const send = (message) => signaller.signal(JSON.stringify(message))
    const candidates = []
    const gathered = new Promise((resolve) => {
      connection.onicecandidate = ({ candidate }) => {
        if (candidate === null) {
          resolve()
        } else if (candidate.protocol === 'udp') {
          candidates.push(candidate.toJSON())
        }
      }
    })
    const describe = async (description) => {
      await connection.setLocalDescription(description)
      send({ description: { type: description.type, sdp: description.sdp } })
      await gathered
      inBatches(candidates).forEach(send)
    }
    const failed = new Promise((resolve, reject) => {
      connection.onconnectionstatechange = () => {
        if (connection.connectionState === 'failed') {
          reject(new Error('no connection came of it'))
        }
      }
    })
    const said = new Promise((resolve) => {
      const use = (channel) => {
        channel.onopen = () => channel.send(text)
        channel.onmessage = ({ data }) => resolve(data)
      }
      if (isFirst) {
        use(connection.createDataChannel('talk'))
      } else {
        connection.ondatachannel = ({ channel }) => use(channel)
      }
    })
    const hear = async () => {
      for (;;) {
        const message = JSON.parse(await window.pipes.next())
        if (message.description) {
          await connection.setRemoteDescription(message.description)
          if (!isFirst) {
            describe(await connection.createAnswer())
          }
        } else {
          await Promise.all(message.candidates.map((candidate) => connection.addIceCandidate(candidate)))
        }
      }
    }
    const wrong = hear()
    if (isFirst) {
      await describe(await connection.createOffer())
    }
    return Promise.race([said, failed, wrong])
  }

  window.pipes = {
    listen: (handle) => signaller.listen(handle),
    connect: (handle) => signaller.connect(handle),
    signal: (item) => signaller.signal(typeof item === 'string' ? item : new Uint8Array(item)),
    close: () => signaller.close(),
    // Resolves with the next signal: a text, or an array of bytes.
    next: () => new Promise((resolve) => {
      waiting.push(resolve)
      if (arrived.length > 0) {
        waiting.shift()(arrived.shift())
      }
    }),
    // Number of signals that were not taken.
    left: () => arrived.length,
    // Reason of the end, once it ended.
    ended: () => ended,
    talk
  }
})()
