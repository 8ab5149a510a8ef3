// A path to the bridge that loses packets: a relay of UDP at another address with the same port.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'

export const LOSSY_ADDRESS = '127.0.0.2'

async function bind (address, port) {
  const socket = createSocket('udp4')
  socket.bind(port, address)
  await once(socket, 'listening')
  return socket
}

// A UDP port that is free at 127.0.0.1 now.
export async function freeUdpPort () {
  const socket = await bind('127.0.0.1', 0)
  const { port } = socket.address()
  await new Promise((resolve) => { socket.close(resolve) })
  return port
}

// Loses packets each way at random. `loss`: their part.
export async function openLossyPath (port, loss) {
  const front = await bind(LOSSY_ADDRESS, port)
  const clients = new Map()
  const arrives = () => Math.random() >= loss
  const open = async (address, clientPort) => {
    const back = await bind('127.0.0.1', 0)
    back.on('message', (data) => {
      if (arrives()) {
        front.send(data, clientPort, address)
      }
    })
    return back
  }
  front.on('message', async (data, { address, port: clientPort }) => {
    const name = `${address} ${clientPort}`
    if (!clients.has(name)) {
      clients.set(name, open(address, clientPort))
    }
    const back = await clients.get(name)
    if (arrives()) {
      back.send(data, port, '127.0.0.1')
    }
  })
  return {
    async close () {
      front.close()
      for (const back of clients.values()) {
        (await back).close()
      }
    }
  }
}
