// A page of the time of sigver 8.1 to 10.1 that uses event streams: EventSource to receive, and EventSource
// or fetch to send. It records every event.

window.streams = {}

// `seen` has one text per event: open, error, or an event's name and data.
window.listen = (name, url) => {
  const source = new EventSource(url)
  const stream = { source, seen: [] }
  window.streams[name] = stream
  source.onopen = () => stream.seen.push('open')
  source.onerror = () => stream.seen.push(source.readyState === EventSource.CLOSED ? 'closed' : 'error')
  source.onmessage = ({ data }) => stream.seen.push(`message ${data}`)
  for (const type of ['auth', 'close']) {
    source.addEventListener(type, ({ data }) => stream.seen.push(`${type} ${data}`))
  }
}

window.seen = (name) => window.streams[name].seen

window.post = async (url, body) => {
  const response = await fetch(url, { method: 'POST', body })
  return `${response.status} ${await response.text()}`
}

// The response's body may never end: a sender does not wait for it.
window.get = async (url) => {
  const stop = new AbortController()
  const { status } = await fetch(url, { signal: stop.signal })
  stop.abort()
  return status
}
