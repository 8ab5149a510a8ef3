// The web site of the pages: one page per peer, the bundles and our page scripts, on 127.0.0.1 only.

import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { bundlePath } from './bundles.mjs'
import { findVersion } from './versions.mjs'

const PAGE = new URL('../page/', import.meta.url)

function html (title, scripts) {
  return `<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>${title}</title>
${scripts.map((script) => `<script src="${script}"></script>`).join('\n')}
`
}

async function answer (url) {
  if (url.pathname === '/peer') {
    const { version } = findVersion(url.searchParams.get('version'))
    // The watcher is loaded first, so that it observes all that the bundle does.
    return ['text/html', html(`netflux ${version}`, ['/watch.js', `/bundles/${version}.js`, '/payload.js', '/driver.js'])]
  }
  if (url.pathname === '/signaller') {
    return ['text/html', html('signaller', ['/signaller.js'])]
  }
  if (url.pathname === '/events') {
    return ['text/html', html('event streams', ['/events.js'])]
  }
  if (['/watch.js', '/payload.js', '/driver.js', '/signaller.js', '/events.js'].includes(url.pathname)) {
    return ['text/javascript', await readFile(new URL(`.${url.pathname}`, PAGE))]
  }
  const bundle = /^\/bundles\/(.+)\.js$/.exec(url.pathname)
  if (bundle) {
    return ['text/javascript', await readFile(bundlePath(findVersion(bundle[1])))]
  }
  throw new Error(`nothing at ${url.pathname}`)
}

export async function openSite () {
  const server = createServer((request, response) => {
    answer(new URL(request.url, 'http://127.0.0.1')).then(
      ([type, body]) => response.writeHead(200, { 'content-type': `${type}; charset=utf-8` }).end(body),
      (error) => response.writeHead(404, { 'content-type': 'text/plain' }).end(String(error.message))
    )
  })
  await new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    close () {
      server.close()
      server.closeAllConnections()
    }
  }
}
