// Faulty servers, to check that the harness detects faults.

import { createHash } from 'node:crypto'
import { createServer as createHttpServer } from 'node:http'
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
