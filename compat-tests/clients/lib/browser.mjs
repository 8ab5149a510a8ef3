// Starts Chromium so that its pages can reach each other and nothing outside this machine.

import { chromium } from 'playwright-core'

// Chromium heeds the last --disable-features only, so this replaces the list of Playwright: what would send something
// out of this machine, be it multicast, or turn http into https.
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
  // No name is ever looked up: 0.10.x would ask for a STUN server of its own.
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
]

export async function openBrowser () {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: ARGS
  })
  return { browser, context: await browser.newContext() }
}
