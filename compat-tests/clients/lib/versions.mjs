// Facts about each published netflux: location of its bundle, page API, the Node.js sigver release it was
// made for, and the expected behaviour of its signaling sockets.

// `firstSocket` and `joinerSocket`: 'stays' open for as long as the page, or 'closes' by the client itself once the
// joiner has its data channel.
// `layer`: versions of one layer understand each other on a data channel.
// `hearsJoins`: a joiner reports the members it finds. `firstMayLeave`: the group can still be joined afterwards.
// `leaveIsHeard`: the other members notice the client's own leave call, not only its page going away.
// `repeatsLeaves`: a member that left is reported to the application twice or three times.
// `ownRace`: the error in the page when a joiner trips over a race of its own, so that its join promise never ends
// although it is in the group; a scenario that failed after that may be tried again.
const DEFAULTS = {
  firstSocket: 'stays',
  joinerSocket: 'stays',
  hearsJoins: true,
  firstMayLeave: true,
  leaveIsHeard: true
}

const TABLE = {
  '0.10.3': {
    integrity: 'sha512-FEkNNWQDV2viac5zUpQNl1SMEbAyXENY5ANNALckIFujrMTyAsa0qBMcj46HP52vAitvz4ytt0j8WFAbz4qqPg==',
    bundle: 'netflux.es2015.umd.js',
    api: 'WebChannel-0.10',
    layer: 'A',
    original: '7.1.0',
    hearsJoins: false,
    firstMayLeave: false,
    repeatsLeaves: true
  },
  '0.10.8': {
    integrity: 'sha512-3xBtnQWOsdBtwo7LrVNCyLeJq13HV76HN8oB3zSE8C0yXSDV1ITNuDkFTq6s7rZVDkItOWSFolNWDIvfpjiKMg==',
    bundle: 'netflux.es2015.umd.js',
    api: 'WebChannel-0.10',
    layer: 'B',
    original: '7.6.4',
    joinerSocket: 'closes',
    firstMayLeave: false
  },
  '1.0.0-rc.3': {
    integrity: 'sha512-XGsdZ37LcZNjp3eZhg/gPUenbZgjfuLUSRGddxivnu3dpToFzzDAKL/q/g5hUvqWNlJMbkZ4KbNt2uzReanQhg==',
    bundle: 'netflux.es2015.umd.js',
    api: 'create-open-join',
    layer: 'B',
    original: '7.6.4',
    joinerSocket: 'closes',
    firstMayLeave: false
  },
  '1.0.0-rc.14': {
    integrity: 'sha512-kFSET3dqGntiadPCBzaT9pgkiLJKIGScONpudbMyhLngQWwfQEcDe6JG1wKtXAwcCZI6fUJXng/0VdC4d7CGsQ==',
    bundle: 'netflux.es5.umd.js',
    api: 'create-join',
    layer: 'B',
    original: '10.1.0',
    // A candidate that crosses the joiner's {"open"} on the wire is treated as the answer to it.
    ownRace: /^rejection: Unknown message from .*\{"candidate":/
  },
  '1.1.0-beta.7': {
    integrity: 'sha512-+7RmmeTNjuhiLKXEmDvy31jkq0TmvbkVwndKwIBzayenCKcXtmYEqiRA8nql7d9/1qH1EdN5gEBu9zhif5uEcA==',
    bundle: 'netflux.umd.js',
    api: 'WebChannel-1.1',
    layer: 'C',
    original: '15.0.4',
    // The member that let the leaver in only notices disconnect() when ICE does, seconds after the page went away.
    leaveIsHeard: false
  },
  '1.1.0-beta.8': {
    integrity: 'sha512-aKo+B9aPR6uW+adJbKRMG/CJoBq7mlyjpCKLPsd/FNNdyy7pBxaa1DlUwfD8u5UhqPlmLnk9HoHbER3Ep0MZzQ==',
    bundle: 'netflux.umd.js',
    api: 'WebChannel-1.1',
    layer: 'C',
    original: '15.0.4',
    // The member that let the leaver in only notices disconnect() when ICE does, seconds after the page went away.
    leaveIsHeard: false
  },
  '3.0.0': {
    integrity: 'sha512-cksPGAcqjAm2iIHaNNMsg6Wee3QWCkXsKAePj2Q9QUx0Od2kH8BrjKE4sFOdx3weXsq2UeatxywEOYZmhB2xdQ==',
    bundle: 'netflux.umd.js',
    api: 'WebGroup',
    layer: 'D',
    original: '18.0.0'
  },
  '4.3.0': {
    integrity: 'sha512-D4XZ4AofO7a0EHnDsB1+1fw6i/XAzinLcsnv+Yxyqawjq5goKff05NC4Uz3EThksFcs0d5OtI3UnZ5XIjrnl4g==',
    bundle: 'netflux.browser.es5.umd.js',
    api: 'WebGroup',
    layer: 'E',
    original: '20.1.0'
  },
  '4.3.1': {
    integrity: 'sha512-hrBpPJOmCdFlizn39/NW1RYncEEDu2SJs/zyiZN04/9ihxF2XV4xviJzQ27ULfoxStNzVzU45iSjZrQnt036pw==',
    bundle: 'netflux.browser.es5.umd.js',
    api: 'WebGroup',
    layer: 'E',
    original: '20.1.0'
  }
}

export const VERSIONS = Object.fromEntries(
  Object.entries(TABLE).map(([version, facts]) => [version, { version, ...DEFAULTS, ...facts }])
)

export function shortName ({ version }) {
  return version.slice(version.indexOf('-') + 1)
}

// `beta.7` and `rc.14` are enough to name a version.
export function findVersion (name) {
  const found = Object.keys(VERSIONS).find((version) => version === name || version.endsWith(`-${name}`))
  if (!found) {
    throw new Error(`unknown netflux version ${JSON.stringify(name)}: known are ${Object.keys(VERSIONS).join(' ')}`)
  }
  return VERSIONS[found]
}
