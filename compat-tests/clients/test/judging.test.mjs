// Verdicts of the harness, without a browser.

import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { test } from 'node:test'
import { judge, makeBroadcasts, ROUNDS } from '../lib/delivery.mjs'
import { carries } from '../lib/frames.mjs'
import { complaints, conclusion, table } from '../lib/matrix.mjs'
import { namePair, pairUp } from '../lib/pairs.mjs'
import { socketTrouble } from '../lib/signaling.mjs'
import { Turns } from '../lib/turns.mjs'
import { Timeout, until } from '../lib/until.mjs'
import { findVersion } from '../lib/versions.mjs'

const broadcasts = makeBroadcasts([{ name: 'a', id: 1 }, { name: 'b', id: 2 }], 'nonce')
const fromA = broadcasts.filter(({ sender }) => sender === 'a').map(({ from, text }) => ({ from, text }))

test('a complete delivery has nothing wrong', () => {
  const { delivered, expected, missing, twice, strange } = judge(broadcasts, 'b', fromA)
  assert.deepEqual({ delivered, expected, missing, twice, strange }, {
    delivered: ROUNDS, expected: ROUNDS, missing: [], twice: [], strange: []
  })
})

test('a lost broadcast is missing', () => {
  assert.deepEqual(judge(broadcasts, 'b', fromA.slice(1)).missing, [fromA[0].text])
})

test('a repeated broadcast is seen', () => {
  assert.deepEqual(judge(broadcasts, 'b', [fromA[0], ...fromA]).twice, [fromA[0].text])
})

test('the echo of an own broadcast and a wrong sender are strange', () => {
  const echo = { from: 2, text: broadcasts.find(({ sender }) => sender === 'b').text }
  const forged = { ...fromA[0], from: 3 }
  assert.deepEqual(judge(broadcasts, 'b', [...fromA, echo, forged]).strange, [echo, forged])
})

test('signaling sockets', () => {
  const peer = (...sockets) => ({ name: 'a', sockets })
  const open = { state: 'open' }
  const cut = { state: 'closed', code: 1006, reason: '' }
  const ended = { ...cut, code: 1005, byClient: true }
  assert.equal(socketTrouble(peer(open), 'stays'), undefined)
  assert.equal(socketTrouble(peer(ended), 'closes'), undefined)
  assert.match(socketTrouble(peer(cut), 'closes'), /should have stayed open: closed 1006/)
  assert.match(socketTrouble(peer(ended), 'stays'), /should have stayed open/)
  assert.match(socketTrouble(peer(cut, open), 'stays'), /2 signaling sockets/)
  assert.match(socketTrouble(peer(), 'stays'), /0 signaling sockets/)
})

test('until resolves at the change that makes its test true', async () => {
  const emitter = new EventEmitter()
  let value = 0
  const waiting = until([emitter], () => value, { limit: 1000, what: 'value' })
  value = 7
  emitter.emit('change')
  assert.equal(await waiting, 7)
  assert.equal(emitter.listenerCount('change'), 0)
})

test('until gives up, and passes on what its test throws', async () => {
  await assert.rejects(until([], () => false, { limit: 5, what: 'never' }), Timeout)
  await assert.rejects(until([], () => { throw new Error('broken') }, { limit: 1000, what: 'broken' }), /^Error: broken$/)
})

test('turns are taken in order', async () => {
  const turns = new Turns()
  const seen = []
  await Promise.all(['a', 'b', 'c'].map(async (name) => {
    const end = await turns.take()
    seen.push(name)
    await new Promise(setImmediate)
    seen.push(name)
    end()
  }))
  assert.deepEqual(seen, ['a', 'a', 'b', 'b', 'c', 'c'])
})

test('versions have short names', () => {
  assert.equal(findVersion('rc.3').version, '1.0.0-rc.3')
  assert.equal(findVersion('4.3.1').version, '4.3.1')
  assert.throws(() => findVersion('5.0.0'), /unknown netflux version/)
})

const spec = (version, fields = {}) => ({ version, ...fields })
const attempt = (passed, fields = {}) => ({ passed, channelMs: 41.6, joinerSockets: 1, errors: [], signaling: [], log: [], ...fields })

test('versions are paired with each other, and with themselves', () => {
  const names = pairUp([spec('1.1.0-beta.8'), spec('4.3.1')]).map(namePair)
  assert.deepEqual(names, ['1.1.0-beta.8:1.1.0-beta.8', '1.1.0-beta.8:4.3.1', '4.3.1:1.1.0-beta.8', '4.3.1:4.3.1'])
})

test('the table has what passed, after a retry, and what did not', () => {
  const [same, mixed, other] = pairUp([spec('1.1.0-beta.8'), spec('4.3.1')])
  const results = [
    { ...same, passed: true, attempts: [attempt(true)] },
    { ...mixed, passed: true, attempts: [attempt(false, { reason: 'late' }), attempt(true)] },
    { ...other, passed: false, attempts: [attempt(false, { reason: 'first' }), attempt(false, { reason: 'second' })] }
  ]
  assert.deepEqual(table(results), [
    'member \\ joiner  beta.8  4.3.1',
    'beta.8           ok 42   ok 42 retry',
    '4.3.1            FAILED'
  ])
  assert.equal(conclusion(results).at(-1), 'pairs: 2 of 3, 1 after a retry')
  assert.deepEqual(results.flatMap(complaints), [
    'again  1.1.0-beta.8:4.3.1, attempt 1: late',
    'FAILED 4.3.1:1.1.0-beta.8, attempt 1: first',
    'FAILED 4.3.1:1.1.0-beta.8, attempt 2: second'
  ])
})

test('the contents of a frame are described in every generation', () => {
  const text = (payloadData) => ({ opcode: 1, payloadData })
  const binary = (payload) => ({ opcode: 2, payloadData: Buffer.from(payload, 'latin1').toString('base64') })
  assert.equal(carries(text('{"data":{"offer":{"sdp":"a=setup:actpass"}}}')), 'offer')
  assert.equal(carries(binary('\x0a\xff a=setup:active\r\n a=candidate:1')), 'answer')
  assert.equal(carries(binary('\x22candidate:1 1 udp')), 'candidate')
  assert.equal(carries(text('{"opened":true}')), 'other')
})
