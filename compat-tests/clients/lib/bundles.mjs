// Brings the netflux bundles into compat-tests/.work/netflux: npm packs the published tarball of every pinned version,
// its checksum is compared with the pinned one, and the one file a page needs is taken out. Run it as a program to
// fetch what is missing; running it again does nothing.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { VERSIONS } from './versions.mjs'

const WORK = fileURLToPath(new URL('../../.work/netflux/', import.meta.url))

function tarballOf ({ version }) {
  return join(WORK, `netflux-${version}.tgz`)
}

export function bundlePath ({ version }) {
  const path = join(WORK, `${version}.js`)
  if (!existsSync(path)) {
    throw new Error(`the bundle of netflux ${version} is missing: run ./setup first`)
  }
  return path
}

function verify (spec, tarball) {
  const integrity = `sha512-${createHash('sha512').update(readFileSync(tarball)).digest('base64')}`
  if (integrity !== spec.integrity) {
    throw new Error(`netflux ${spec.version}: the tarball is ${integrity}, pinned is ${spec.integrity}`)
  }
}

function fetchTarball (spec, scratch) {
  execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', scratch, `netflux@${spec.version}`], {
    cwd: scratch,
    stdio: ['ignore', 'ignore', 'inherit']
  })
  const fetched = join(scratch, `netflux-${spec.version}.tgz`)
  verify(spec, fetched)
  renameSync(fetched, tarballOf(spec))
}

function extract (spec, scratch) {
  const file = `package/dist/${spec.bundle}`
  const text = execFileSync('tar', ['-xzOf', tarballOf(spec), file], { maxBuffer: 16 * 1024 * 1024 })
  const partial = join(scratch, `${spec.version}.js`)
  writeFileSync(partial, text)
  renameSync(partial, join(WORK, `${spec.version}.js`))
}

function fetchBundles () {
  mkdirSync(WORK, { recursive: true })
  const scratch = mkdtempSync(join(WORK, 'partial-'))
  try {
    for (const spec of Object.values(VERSIONS)) {
      const news = !existsSync(tarballOf(spec))
      if (news) {
        fetchTarball(spec, scratch)
      } else {
        verify(spec, tarballOf(spec))
      }
      extract(spec, scratch)
      console.log(`netflux ${spec.version}: ${news ? 'fetched' : 'present'}`)
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  fetchBundles()
}
