// A WebSocket client that is just enough to see what a proxy does: messages of one frame, and no checks.

import { createHash, randomBytes } from 'node:crypto'
import http from 'node:http'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

// Opens a WebSocket on 127.0.0.1, from another loopback address if one is given. Text is received as a string, bytes as a
// Buffer. An error has the status of the response, if there is one.
export function openWebSocket (port, path, localAddress) {
  const key = randomBytes(16).toString('base64')
  return new Promise((resolve, reject) => {
    const headers = {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': key
    }
    const request = http.request({ host: '127.0.0.1', port, path, headers, agent: false, localAddress })
    request.once('error', reject)
    request.once('response', ({ statusCode: status }) => {
      reject(Object.assign(new Error(`status ${status} instead of 101`), { status }))
    })
    request.once('upgrade', (response, socket, head) => {
      const accept = createHash('sha1').update(key + GUID).digest('base64')
      if (response.headers['sec-websocket-accept'] !== accept) {
        reject(new Error('a wrong Sec-WebSocket-Accept'))
      }
      resolve(webSocket(socket, head))
    })
    request.end()
  })
}

function webSocket (socket, head) {
  const received = []
  const waiting = []
  let bytes = Buffer.alloc(0)
  let closed
  const closing = new Promise((resolve) => { closed = resolve })
  const onData = (data) => {
    bytes = Buffer.concat([bytes, data])
    for (let frame = read(bytes); frame; frame = read(bytes)) {
      bytes = bytes.subarray(frame.end)
      if (frame.opcode === 9) {
        socket.write(write(10, frame.payload))
      } else if (frame.opcode === 8) {
        closed(frame.payload.length < 2 ? 1005 : frame.payload.readUInt16BE(0))
      } else if (frame.opcode === 1 || frame.opcode === 2) {
        received.push(frame.opcode === 1 ? frame.payload.toString() : frame.payload)
      }
    }
    while (received.length > 0 && waiting.length > 0) {
      waiting.shift()(received.shift())
    }
  }
  onData(head)
  socket.on('data', onData).on('error', () => {})
  return {
    send: (message) => socket.write(write(typeof message === 'string' ? 1 : 2, Buffer.from(message))),
    receive: () => new Promise((resolve) => {
      waiting.push(resolve)
      onData(Buffer.alloc(0))
    }),
    // The code with which the server closes.
    closing,
    close: () => socket.destroy()
  }
}

// The first frame of a server, if it is whole.
function read (bytes) {
  if (bytes.length < 2) {
    return undefined
  }
  const short = bytes[1] & 127
  const start = short < 126 ? 2 : short === 126 ? 4 : 10
  if (bytes.length < start) {
    return undefined
  }
  const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2))
  const end = start + length
  return bytes.length < end ? undefined : { opcode: bytes[0] & 15, payload: bytes.subarray(start, end), end }
}

function write (opcode, payload) {
  const mask = randomBytes(4)
  const length = payload.length < 126 ? [128 | payload.length] : [128 | 126, payload.length >> 8, payload.length & 255]
  return Buffer.concat([
    Buffer.from([128 | opcode, ...length]),
    mask,
    payload.map((byte, at) => byte ^ mask[at & 3])
  ])
}
