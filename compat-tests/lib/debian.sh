# For the setup scripts, which source this: packages from Debian, and a report of what is done. Nothing is run here.

say() { printf 'setup: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "needs root, or sudo, for: $*"
  fi
}

# install_package NAME: whether it is needed is for the caller to know.
install_package() {
  say "installing $1"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$1"
}
