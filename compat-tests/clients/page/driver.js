// Last script of every page: one API, `driver.first/join/send/sendTo/leave/id`, over the client APIs of all
// netflux versions. Results are reported as events: 'ready' (in the group), 'failed', 'joined' and 'left'
// (another member), 'message'.

(() => {
  const params = new URLSearchParams(location.search)
  const signaling = params.get('signaling')
  const JOINED = 1

  const ready = () => report('ready')
  const failed = (reason) => report('failed', { text: String(reason?.message ?? reason) })
  const joined = (id) => report('joined', { id })
  const left = (id) => report('left', { id })

  // Messages that are measured are not reported one by one.
  let pong = () => {}
  let counted = 0
  const message = (id, data) => {
    const kind = typeof data === 'string' ? data.slice(0, 5) : ''
    if (kind === 'ping ') {
      driver.sendTo(id, 'pong ')
    } else if (kind === 'pong ') {
      pong()
    } else if (kind === 'count') {
      counted += 1
    } else {
      report('message', { id, text: describePayload(data) })
    }
  }

  // Resolves with the times of round trips to a member, in milliseconds.
  async function roundTrips (id, count) {
    const times = []
    for (let round = 0; round < count; round += 1) {
      const begin = performance.now()
      await new Promise((resolve) => {
        pong = resolve
        driver.sendTo(id, 'ping ')
      })
      times.push(performance.now() - begin)
    }
    return times
  }

  // Sends messages at a rate to all, or to each of the members `to`: one by one, or as many at once as `burst` has.
  // Resolves with the number of them, of those to each member.
  async function flood (rate, seconds, { burst = 1, to } = {}) {
    const begin = performance.now()
    const text = `count${'x'.repeat(95)}`
    let sent = 0
    while (performance.now() - begin < seconds * 1000) {
      for (const due = (performance.now() - begin) / 1000 * rate; sent < due; sent += burst) {
        for (let number = 0; number < burst; number += 1) {
          to === undefined ? driver.send(text) : to.forEach((id) => driver.sendTo(id, text))
        }
      }
      await new Promise((resolve) => { setTimeout(resolve, 5) })
    }
    return sent
  }

  // A call whose promise resolves when this peer is in the group.
  const settle = (promise) => { promise.then(ready, failed) }

  // 0.10.3, 0.10.8
  function webChannel010 () {
    const channel = new netflux.WebChannel({ signaling })
    Object.assign(channel, { onJoining: joined, onLeaving: left, onMessage: message })
    return {
      first: (key) => settle(channel.open({ key })),
      join: (key) => settle(channel.join(key)),
      send: (data) => channel.send(data),
      sendTo: (id, data) => channel.sendTo(id, data),
      leave: () => channel.leave(),
      id: () => channel.myId
    }
  }

  // From 1.0.0-rc.3 to 1.1.0-beta.8 the callbacks had the same names.
  function listen (channel) {
    return Object.assign(channel, { onPeerJoin: joined, onPeerLeave: left, onMessage: message })
  }

  // 1.0.0-rc.3
  function createOpenJoin () {
    const channel = listen(netflux.create({ signalingURL: signaling, iceServers: [] }))
    return {
      first: (key) => settle(channel.open({ key })),
      join: (key) => settle(channel.join(key)),
      send: (data) => channel.send(data),
      sendTo: (id, data) => channel.sendTo(id, data),
      leave: () => channel.leave(),
      id: () => channel.myId
    }
  }

  // Those in which the first peer joins as well.
  function joinOnly (channel, leave) {
    const join = (key) => settle(channel.join(key))
    return {
      first: join,
      join,
      send: (data) => channel.send(data),
      sendTo: (id, data) => channel.sendTo(id, data),
      leave,
      id: () => channel.myId
    }
  }

  // 1.0.0-rc.14
  function createJoin () {
    const channel = listen(netflux.create({ signalingURL: signaling, iceServers: [] }))
    return joinOnly(channel, () => channel.leave())
  }

  // 1.1.0-beta.7, 1.1.0-beta.8
  function webChannel11 () {
    const channel = listen(new netflux.WebChannel({ signalingURL: signaling, iceServers: [] }))
    return joinOnly(channel, () => channel.disconnect())
  }

  // 3.0.0, 4.3.0, 4.3.1
  function webGroup () {
    const group = new netflux.WebGroup({ signalingServer: signaling, rtcConfiguration: { iceServers: [] } })
    group.onMemberJoin = joined
    group.onMemberLeave = left
    group.onMessage = message
    group.onStateChange = (state) => {
      report('state', { state })
      if (state === JOINED) {
        ready()
      }
    }
    const join = (key) => { group.join(key) }
    return {
      first: join,
      join,
      send: (data) => group.send(data),
      sendTo: (id, data) => group.sendTo(id, data),
      leave: () => group.leave(),
      id: () => group.myId
    }
  }

  const apis = {
    'WebChannel-0.10': webChannel010,
    'create-open-join': createOpenJoin,
    'create-join': createJoin,
    'WebChannel-1.1': webChannel11,
    WebGroup: webGroup
  }
  window.driver = { ...apis[params.get('api')](), roundTrips, flood, counted: () => counted }
})()
