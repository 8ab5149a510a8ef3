'use strict'
// Preload (`node -r ./bind.js server.js`) for the releases whose port is hard-coded and which listen on every
// interface: whatever address a server asks for, it gets 127.0.0.1 and the port in ORIGINAL_PORT.

const { Server } = require('net')

const port = Number(process.env.ORIGINAL_PORT)
if (!Number.isInteger(port) || port <= 0) {
  throw new Error('bind.js: ORIGINAL_PORT is not a port')
}

const listen = Server.prototype.listen
Server.prototype.listen = function (...args) {
  const ready = args.find((arg) => typeof arg === 'function')
  return listen.call(this, { host: '127.0.0.1', port }, ready)
}
