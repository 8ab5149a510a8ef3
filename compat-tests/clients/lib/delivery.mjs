// Broadcasts: expected receivers, and errors in what was received.

// Several rounds: the second also proves that nothing of the first arrived twice, as channels are ordered.
export const ROUNDS = 2

export function makeBroadcasts (senders, nonce) {
  return senders.flatMap(({ name, id }) => Array.from({ length: ROUNDS }, (_, round) => {
    return { sender: name, from: id, text: `${nonce} ${name} ${round + 1}` }
  }))
}

// `received`: messages of `name` since the broadcasts began, as [{ from, text }].
export function judge (broadcasts, name, received) {
  const expected = broadcasts.filter(({ sender }) => sender !== name)
  const same = (broadcast, message) => message.text === broadcast.text && message.from === broadcast.from
  const counts = expected.map((broadcast) => received.filter((message) => same(broadcast, message)).length)
  return {
    expected: expected.length,
    delivered: counts.filter((count) => count > 0).length,
    missing: expected.filter((_, index) => counts[index] === 0).map(({ text }) => text),
    twice: expected.filter((_, index) => counts[index] > 1).map(({ text }) => text),
    strange: received.filter((message) => !expected.some((broadcast) => same(broadcast, message)))
  }
}
