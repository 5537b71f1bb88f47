#!/usr/bin/env bash
# Runs the README's commands, or the Dockerfile's steps, on a machine that has nothing yet: a bare Debian 13 (Python 3.13) in a folder.
#
#   sudo bash tests/fresh_machine.sh FOLDER [COMMAND...]    such as: make run, make test; by default both
#   sudo bash tests/fresh_machine.sh FOLDER --image         the steps of the Dockerfile, then the app without and with a password
#
# Needs Linux, root, debootstrap and git, and about 6 GB. FOLDER is made where it does not exist yet; what stands committed in this
# checkout is cloned into it anew each time. BHI_TEST_ARCHIVE and BHI_TEST_WEIGHTS, where set, are copied in for the tests that want them.
set -euo pipefail

usage() { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$#" -ge 1 ] && [ "${1#-}" = "$1" ] || usage
[ "$(id -u)" = 0 ] || { echo "fresh_machine.sh changes the root of a process, which only root may: start it with sudo." >&2; exit 2; }
for tool in debootstrap git chroot; do command -v "$tool" >/dev/null || { echo "$tool is missing: install it first." >&2; exit 2; }; done

source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
machine=$(cd "$1" && pwd)
shift

[ -e "$machine/etc/debian_version" ] || debootstrap --variant=minbase trixie "$machine"
grep -q '^13' "$machine/etc/debian_version" || { echo "$machine is no Debian 13: name another folder." >&2; exit 2; }

mounted=()
leave() { for place in "${mounted[@]}"; do umount -l "$place"; done; }
trap leave EXIT
attach() { mkdir -p "$machine$2"; mount --bind "$1" "$machine$2"; mounted=("$machine$2" "${mounted[@]}"); }
attach /proc /proc
attach /sys /sys
attach /dev /dev
attach /dev/shm /dev/shm
cp -L /etc/resolv.conf "$machine/etc/resolv.conf"

# of the host's environment only how the network is reached; the certificates that it trusts are copied in once Debian's are there
network=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do [ -z "${!name:-}" ] || network+=("$name=${!name}"); done
inside() { chroot "$machine" /usr/bin/env -i "${network[@]}" DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 "$@"; }
paths=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
trust() { [ ! -d "$machine/etc/ssl/certs" ] || cp -L /etc/ssl/certs/ca-certificates.crt "$machine/etc/ssl/certs/ca-certificates.crt"; }
as_root() { inside PATH=$paths HOME=/ bash -euo pipefail -c "$1"; trust; }

checkout=/srv/checkout
rm -rf "$machine$checkout"
git clone --quiet --no-hardlinks "$source" "$machine$checkout"

if [ "${1:-}" = --image ]; then
    # what an earlier call has left
    as_root "userdel bhi 2>/dev/null || true; rm -rf /opt/venv /srv/bhi /srv/user"
    # Docker's own words, step by step; a line that ends in a backslash goes on in the next
    user=root workdir=/ variables=()
    step() { inside PATH=$paths HOME=/srv "${variables[@]}" chroot --userspec="$user" / bash -euo pipefail -c "cd '$workdir'; $1" && trust; }
    while IFS= read -r line; do
        word=${line%% *} rest=${line#* }
        case "$word" in
            '' | '#'* | FROM | EXPOSE | HEALTHCHECK | CMD) continue ;;
        esac
        printf '\n--- %s\n' "$line"
        case "$word" in
            RUN) step "$rest" ;;
            ENV) variables+=("$(inside PATH=$paths bash -c "printf %s $rest")") ;;
            USER) user=$rest ;;
            WORKDIR) workdir=$rest; mkdir -p "$machine$workdir"; chroot "$machine" chown "$user" "$workdir" ;;
            COPY)
                # the one form that the Dockerfile uses: everything that .dockerignore leaves, owned by the user
                [ "$rest" = "--chown=$user . ." ] || { echo "This script knows no COPY $rest." >&2; exit 1; }
                cp -a "$machine$checkout/." "$machine$workdir/"
                (cd "$machine$workdir" && grep -v '^#' .dockerignore | xargs -r rm -rf)
                chroot "$machine" chown -R "$user" "$workdir" ;;
            *) echo "This script knows no $word." >&2; exit 1 ;;
        esac
    done < <(sed -e ':a' -e '/\\$/N; s/\\\n *//; ta' "$source/Dockerfile")
    command=$(sed -n 's/^CMD \[\(.*\)\]/\1/p' "$source/Dockerfile" | tr -d '",')
    health=$(sed -n 's/^HEALTHCHECK .* CMD //p' "$source/Dockerfile")
    printf '\n--- %s, without a password\n' "$command"
    if step "$command"; then echo "It started without a password." >&2; exit 1; else echo "refused, exit code $?"; fi
    printf '\n--- %s, with BHI_NO_PASSWORD=1\n' "$command"
    variables+=("BHI_NO_PASSWORD=1")
    step "$command & app=\$!; for second in \$(seq 120); do sleep 1; if $health 2>/dev/null; then echo healthy after \$second s; kill \$app; exit 0; fi; done; kill \$app; exit 1"
    exit
fi

as_root "apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates python3 python3-venv make git chromium"
as_root "id newcomer >/dev/null 2>&1 || useradd --create-home --home-dir /srv/newcomer --uid 2000 newcomer; chown -R newcomer $checkout /srv/newcomer"
tested=()
for name in BHI_TEST_ARCHIVE BHI_TEST_WEIGHTS; do
    [ -n "${!name:-}" ] || continue
    cp -L "${!name}" "$machine/srv/"
    tested+=("$name=/srv/$(basename "${!name}")")
done
[ "$#" -gt 0 ] || set -- "make run && make test"
chroot "$machine" /usr/bin/env -i "${network[@]}" "${tested[@]}" PATH=$paths HOME=/srv/newcomer USER=newcomer LANG=C.UTF-8 \
    chroot --userspec=newcomer / bash -euo pipefail -c "cd $checkout && $*"
