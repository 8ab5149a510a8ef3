// Faulty servers, to check that the harness detects faults.

import { createHash } from 'node:crypto'
import { createServer as createHttpServer, request } from 'node:http'
import { connect, createServer } from 'node:net'

const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

async function listen (server, sockets) {
  await new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    url: `ws://127.0.0.1:${server.address().port}`,
    close () {
      server.close()
      sockets.forEach((socket) => socket.destroy())
    }
  }
}

// Completes the WebSocket handshake, then sends nothing.
export function openMute () {
  const sockets = new Set()
  const server = createHttpServer().on('upgrade', (request, socket) => {
    const accept = createHash('sha1').update(request.headers['sec-websocket-key'] + WEBSOCKET_GUID).digest('base64')
    socket.write([
      'HTTP/1.1 101 Switching Protocols',
      'Upgrade: websocket',
      'Connection: Upgrade',
      `Sec-WebSocket-Accept: ${accept}`,
      '\r\n'
    ].join('\r\n'))
    socket.on('error', () => {}).resume()
    sockets.add(socket)
  })
  return listen(server, sockets)
}

// Forwards to the server at `url`, and cuts each connection after `ms`.
export function openCutter (url, ms) {
  const sockets = new Set()
  const { hostname, port } = new URL(url)
  const server = createServer((near) => {
    const far = connect(port, hostname)
    const cut = () => {
      near.destroy()
      far.destroy()
    }
    const timer = setTimeout(cut, ms)
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => {
        clearTimeout(timer)
        cut()
        sockets.delete(socket)
      })
    }
    near.pipe(far).pipe(near)
  })
  return listen(server, sockets)
}

// Forwards to the server at `url`, and replaces every path but / by another one.
export function openPathReplacer (url) {
  const sockets = new Set()
  const { hostname, port } = new URL(url)
  const server = createServer((near) => {
    const far = connect(port, hostname)
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => {
        near.destroy()
        far.destroy()
      })
    }
    // The head of a request of a browser is one packet.
    near.once('data', (head) => {
      far.write(head.toString('latin1').replace(/^GET \/[^ ?]+/, 'GET /signaling'), 'latin1')
      near.pipe(far)
    })
    far.pipe(near)
  })
  return listen(server, sockets)
}

// Forwards requests to the server at `url` without their upgrades, and responses when they are complete.
export function openBufferingProxy (url) {
  const sockets = new Set()
  const { hostname, port } = new URL(url)
  const server = createHttpServer(({ method, url: path, headers }, response) => {
    const { upgrade, connection, ...others } = headers
    const forwarded = request({ hostname, port, method, path, headers: others }, (answer) => {
      const chunks = []
      answer.on('data', (chunk) => chunks.push(chunk))
      answer.on('end', () => response.writeHead(answer.statusCode, answer.headers).end(Buffer.concat(chunks)))
    })
    forwarded.on('error', () => response.destroy())
    response.on('close', () => forwarded.destroy())
    forwarded.end()
  })
  // Without a listener for upgrades, these are plain requests.
  server.on('connection', (socket) => sockets.add(socket))
  return listen(server, sockets)
}
