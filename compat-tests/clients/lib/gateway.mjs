// Starts this gateway from its program.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export async function startGateway (bin, args) {
  const env = { ...process.env, SIGVER_LOG: 'warn', SIGVER_CONTROL: 'off', SIGVER_DRAIN_TIMEOUT: '0' }
  const child = spawn(bin, args, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const line = once(createInterface(child.stdout), 'line').then(([line]) => line)
  const first = await Promise.race([line, exited.then(() => undefined)])
  const port = /:(\d+)$/.exec(first ?? '')?.[1]
  if (!port) {
    throw new Error(`${bin} ${args.join(' ')} does not serve`)
  }
  return {
    port,
    pid: child.pid,
    url: `ws://127.0.0.1:${port}`,
    // As a service manager does it. Resolves when the process has ended.
    async stop () {
      child.kill('SIGTERM')
      await exited
    }
  }
}
