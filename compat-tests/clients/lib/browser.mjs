// Starts Chromium so that its pages can reach one another and nothing outside this machine.

import { chromium } from 'playwright-core'

// Chromium uses the last --disable-features only, so this replaces Playwright's list: features that send
// anything out of this machine, including multicast, or turn http into https.
const DISABLED_FEATURES = [
  'WebRtcHideLocalIpsWithMdns',
  'MediaRouter',
  'OptimizationHints',
  'NetworkTimeServiceQuerying',
  'PreconnectToSearch',
  'AimEnabled',
  'HttpsUpgrades',
  'HttpsFirstBalancedModeAutoEnable'
]

const ARGS = [
  // Root has no sandbox.
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // WebRTC between pages of one machine, even when it has only the loopback interface: media permission (granted by
  // the fake dialog) makes every interface a candidate and gives plain addresses instead of multicast names.
  '--allow-loopback-in-peer-connection',
  '--use-fake-ui-for-media-stream',
  `--disable-features=${DISABLED_FEATURES.join(',')}`,
  // No name is looked up: 0.10.x would use a public STUN server.
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
]

// As in most browsers: only names that multicast resolves, no addresses, and no loopback.
const HIDING_ARGS = ARGS.filter((arg) => !arg.includes('loopback') && !arg.includes('media-stream'))
  .map((arg) => arg.replace('WebRtcHideLocalIpsWithMdns,', ''))

export async function openBrowser ({ hidesAddresses = false } = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: hidesAddresses ? HIDING_ARGS : ARGS
  })
  return { browser, context: await browser.newContext() }
}
