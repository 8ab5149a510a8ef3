// Script of the pages that use the path relay: the contract of signallerd's client library in our own words, and
// `relay`, what the scenarios call.

(() => {
  // `listen` and `connect` resolve once the server let us in, and reject if it did not. A listener may signal at once:
  // whoever connects gets it all. `signal` takes text, or bytes. `close` ends it for both.
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

  // No message of the relay is longer, nor are there more in one direction than a few: candidates share messages.
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

  // Both ends of a data channel, all of whose signaling goes through the relay. Resolves with what the other end said.
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
        const message = JSON.parse(await window.relay.next())
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

  window.relay = {
    listen: (handle) => signaller.listen(handle),
    connect: (handle) => signaller.connect(handle),
    signal: (item) => signaller.signal(typeof item === 'string' ? item : new Uint8Array(item)),
    close: () => signaller.close(),
    // The next signal, as soon as there is one: a text, or an array of bytes.
    next: () => new Promise((resolve) => {
      waiting.push(resolve)
      if (arrived.length > 0) {
        waiting.shift()(arrived.shift())
      }
    }),
    // How many came that nobody asked for.
    left: () => arrived.length,
    // How it ended, once it has.
    ended: () => ended,
    talk
  }
})()
