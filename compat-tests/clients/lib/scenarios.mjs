// The scenarios that every line-up of clients goes through, each on a fresh key. `idle` runs a function while other
// scenarios may have the machine.

const HOLD_MS = 17_000

// Two peers: data channel open at both ends, broadcasts both ways.
async function pair (group) {
  await group.grow(2)
  await group.broadcast()
  await group.checkSockets()
}

// Three peers: every broadcast arrives at both others.
async function trio (group) {
  await group.grow(3)
  await group.broadcast()
  await group.checkSockets()
}

// One of three leaves by call, a new one joins; then one closes without leaving, the first peer if the
// dialect lets the group go on, and a new one joins again.
async function change (group) {
  await group.grow(3)
  await group.broadcast()
  await group.remove(group.members[2], 'call')
  await group.add()
  await group.broadcast()
  const firstMayLeave = group.members.every((peer) => peer.spec.firstMayLeave)
  await group.remove(group.members[firstMayLeave ? 0 : 1], 'page')
  await group.add()
  await group.broadcast()
  await group.checkSockets()
}

// Two peers stay longer than any client tolerates a server without heartbeats; then a third can still join.
async function hold (group, idle) {
  await group.grow(2)
  await group.broadcast()
  await group.checkSockets()
  await idle(() => group.hold(HOLD_MS))
  await group.checkSockets()
  await group.broadcast()
  await group.add()
  await group.broadcast()
  await group.checkSockets()
}

// `hold` comes first, because the others run during its pauses.
export const SCENARIOS = { hold, pair, trio, change }
