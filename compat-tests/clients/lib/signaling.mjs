// Expected state of a healthy peer's signaling sockets.

function describe (socket) {
  const how = socket.state === 'closed' ? ` ${socket.code}${socket.reason && ` ${JSON.stringify(socket.reason)}`}` : ''
  return `${socket.state}${how}${socket.byClient ? ' by the client' : ''}`
}

// 'stays' allows exactly one open socket; 'closes' also allows that the client itself closes it.
export function socketTrouble (peer, expected) {
  const { sockets, name } = peer
  const all = sockets.map(describe).join(', ')
  if (sockets.length !== 1) {
    return `${name} has had ${sockets.length} signaling sockets instead of one: ${all}`
  }
  const [socket] = sockets
  const fine = socket.state === 'open' || (expected === 'closes' && socket.byClient)
  return fine ? undefined : `the signaling socket of ${name} should have stayed open: ${all}`
}

// True if a socket that the client closes is closed by now.
export function socketSettled (peer, expected) {
  return expected === 'stays' || peer.sockets[0]?.state === 'closed'
}
