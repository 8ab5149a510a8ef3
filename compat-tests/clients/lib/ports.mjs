// Ports on 127.0.0.1: free ones for servers that cannot choose one themselves, and whether something listens at one.

import { connect, createServer } from 'node:net'

// Below the range from which the system takes the ports of outgoing connections.
const LOWEST = 20_000
const HIGHEST = 32_000

function isFree (port) {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

export async function freePort () {
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST))
    if (await isFree(port)) {
      return port
    }
  }
}

export function canConnect (port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
