// First script of every page: reports the client library's use of sockets and data channels, and uncaught
// errors. It only observes, with two exceptions: navigator.onLine is true even on a machine with only the
// loopback interface, ?loses=1 is a browser that loses messages, and ?delay=MS holds back all events of a socket until MS after it opened, as on a
// slow page.

(() => {
  const params = new URLSearchParams(location.search)
  const delay = Number(params.get('delay') ?? 0)

  // The harness reads what is passed to this binding.
  window.report = (kind, fields = {}) => {
    window.harnessReport(JSON.stringify({ kind, at: performance.timeOrigin + performance.now(), ...fields }))
  }

  Object.defineProperty(Navigator.prototype, 'onLine', { get: () => true, configurable: true })

  const text = (error) => String(error?.message ?? error)
  window.addEventListener('error', (event) => report('error', { text: text(event.error ?? event.message) }))
  window.addEventListener('unhandledrejection', (event) => report('error', { text: `rejection: ${text(event.reason)}` }))

  // What a browser without DevTools' protocol does not tell the harness.
  const reportsFrames = params.get('frames') === '1'
  function frameText (data) {
    if (typeof data === 'string') {
      return data
    }
    const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength ?? 0)
    return `hex ${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`
  }

  watchSockets()
  watchChannels()

  function watchSockets () {
    const NativeWebSocket = window.WebSocket
    let count = 0

    class WatchedWebSocket extends NativeWebSocket {
      #number = ++count
      #hold = delay > 0 ? holdBack(this, (type) => { super.binaryType = type }) : undefined

      constructor (...args) {
        super(...args)
        report('socket-new', { socket: this.#number, url: this.url })
        if (reportsFrames) {
          this.addEventListener('message', ({ data }) => report('received', { socket: this.#number, data: frameText(data) }))
        }
        this.addEventListener('open', () => report('socket-open', { socket: this.#number }))
        this.addEventListener('close', ({ code, reason, wasClean }) => {
          report('socket-close', { socket: this.#number, code, reason, wasClean })
        })
      }

      get readyState () {
        return this.#hold?.isHeld() ? NativeWebSocket.CONNECTING : super.readyState
      }

      get binaryType () {
        return this.#hold ? this.#hold.binaryType : super.binaryType
      }

      set binaryType (type) {
        if (this.#hold) {
          this.#hold.binaryType = type
        } else {
          super.binaryType = type
        }
      }

      send (...args) {
        if (this.#hold?.isHeld()) {
          throw new DOMException('Still in CONNECTING state.', 'InvalidStateError')
        }
        if (reportsFrames) {
          report('sent', { socket: this.#number, data: frameText(args[0]) })
        }
        return super.send(...args)
      }

      close (...args) {
        report('socket-closing', { socket: this.#number, code: args[0], reason: args[1] })
        return super.close(...args)
      }
    }

    // Libraries look at `socket.constructor.name`.
    Object.defineProperty(WatchedWebSocket, 'name', { value: 'WebSocket' })
    window.WebSocket = WatchedWebSocket
  }

  // Must be called before any listener is added to the socket. Every event is held until the delay is over,
  // then dispatched again, one task each, so that promise callbacks run in between as they would natively.
  function holdBack (socket, setNativeBinaryType) {
    const queue = []
    const passing = new WeakSet()
    let state = 'connecting'
    let binaryType = 'blob'

    // A library may choose its binary type as late as in its open handler: bytes are kept until that is known.
    setNativeBinaryType('arraybuffer')

    const copy = (event) => {
      switch (event.type) {
        case 'message': {
          const isBlob = event.data instanceof ArrayBuffer && binaryType === 'blob'
          return new MessageEvent('message', { data: isBlob ? new Blob([event.data]) : event.data, origin: event.origin })
        }
        case 'close':
          return new CloseEvent('close', { code: event.code, reason: event.reason, wasClean: event.wasClean })
        default:
          return new Event(event.type)
      }
    }
    const passOne = () => {
      if (queue.length === 0) {
        state = 'passing'
        setNativeBinaryType(binaryType)
        return
      }
      state = 'draining'
      const event = copy(queue.shift())
      passing.add(event)
      socket.dispatchEvent(event)
      setTimeout(passOne)
    }

    for (const type of ['open', 'message', 'error', 'close']) {
      socket.addEventListener(type, (event) => {
        if (passing.has(event) || state === 'passing') {
          return
        }
        event.stopImmediatePropagation()
        queue.push(event)
        if (state === 'connecting') {
          state = 'holding'
          setTimeout(passOne, type === 'open' ? delay : 0)
        }
      })
    }
    return {
      isHeld: () => state === 'connecting' || state === 'holding',
      get binaryType () {
        return binaryType
      },
      set binaryType (type) {
        binaryType = type
        if (state === 'passing') {
          setNativeBinaryType(type)
        }
      }
    }
  }

  function watchChannels () {
    const NativePeerConnection = window.RTCPeerConnection
    let count = 0

    const watch = (channel) => {
      const number = ++count
      const opened = () => report('channel-open', { channel: number })
      if (channel.readyState === 'open') {
        opened()
      } else {
        channel.addEventListener('open', opened)
      }
      channel.addEventListener('close', () => report('channel-close', { channel: number }))
    }

    // On a busy machine, Chromium at times loses what a page sends in the open event of a channel that the other side
    // created. Here it always does, on the first such channel.
    let loses = params.get('loses') === '1'
    const loseFirstMessages = (channel) => {
      loses = false
      channel.send = () => {}
      channel.addEventListener('open', () => setTimeout(() => { delete channel.send }))
    }

    class WatchedPeerConnection extends NativePeerConnection {
      constructor (...args) {
        super(...args)
        this.addEventListener('datachannel', ({ channel }) => {
          watch(channel)
          if (loses) {
            loseFirstMessages(channel)
          }
        })
      }

      createDataChannel (...args) {
        const channel = super.createDataChannel(...args)
        watch(channel)
        return channel
      }
    }

    Object.defineProperty(WatchedPeerConnection, 'name', { value: 'RTCPeerConnection' })
    window.RTCPeerConnection = WatchedPeerConnection
    // The adapter inside older bundles builds on the prefixed name, where the browser has it.
    if ('webkitRTCPeerConnection' in window) {
      window.webkitRTCPeerConnection = WatchedPeerConnection
    }
  }
})()
