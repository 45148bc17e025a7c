# Makes a plain Debian tree the template `base`. Runs in the tree, as root, with `bash -euo pipefail`.

# The package sources a guest uses, whatever mirror the tree was built from.
rm -f /etc/apt/sources.list
cat > /etc/apt/sources.list.d/debian.sources <<'END'
Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
cat > /etc/apt/apt.conf.d/90sandbox <<'END'
// The guest's kernel limits apt itself; apt's own sandbox needs what it does not offer.
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::Languages "none";
END

# Starting services is for machines with an init system.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

# Users.
passwd --delete root
useradd --create-home --key HOME_MODE=0755 --uid 1000 --user-group --groups sudo --shell /bin/bash user
passwd --delete user
chown -R user:user /home/user
# `sudo` is the agent's; this says what it grants. Debian's own program, if a user installs it, must not take its place.
install -d -m 0750 /etc/sudoers.d
printf 'user ALL=(ALL:ALL) NOPASSWD: ALL\n' > /etc/sudoers.d/user
chmod 0440 /etc/sudoers.d/user
dpkg-divert --local --rename --divert /usr/bin/sudo.debian --add /usr/bin/sudo

# Shells.
printf 'export SHELL="/bin/bash"\n' > /etc/profile.d/shell.sh
printf 'export LANG="${LANG:-C.UTF-8}"\n' > /etc/profile.d/locale.sh
# Every command of an SDK is a login shell, and starting a process costs a guest 10 ms and more: this does what
# Debian's file does without starting `id` and `run-parts`.
cat > /etc/profile <<'END'
if [ "${EUID:-$(id -u)}" -eq 0 ]; then
    PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
else
    PATH="/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
fi
export PATH

if [ -n "${PS1-}" ] && [ -n "${BASH-}" ] && [ "$BASH" != "/bin/sh" ] && [ -f /etc/bash.bashrc ]; then
    . /etc/bash.bashrc
fi

for script in /etc/profile.d/*.sh; do
    if [ -r "$script" ]; then
        . "$script"
    fi
done
unset script

export PS1='\w $ '
if [ -n "${BASH_VERSION-}" ] && [ -f "$HOME/.bashrc" ]; then
    . "$HOME/.bashrc"
fi
END
for home in /root /home/user /etc/skel; do
    printf '\nexport PS1='\''\\w $ '\''\n' >> "$home/.bashrc"
done
chown user:user /home/user/.bashrc
printf 'LANG=C.UTF-8\n' > /etc/default/locale

# npm, unpacked by the recipe. As in the official image, global packages go where every user may write.
chown -R root:root /usr/local/lib/node_modules/npm
cat > /usr/local/lib/node_modules/npm/npmrc <<'END'
prefix=/usr/local
cafile=/etc/ssl/certs/ca-certificates.crt
update-notifier=false
END
ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
chmod 755 /usr/local/lib/node_modules/npm/bin/*-cli.js
rm -rf /usr/local/lib/node_modules/npm/man /usr/local/lib/node_modules/npm/docs

# As in the official image, `pip install` works without a virtual environment.
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED

# Places of the contract.
install -d -m 0777 /code
printf 'ENV_ID=base\nTEMPLATE_ID=base\nBUILD_ID=base\n' > /.e2b
chmod -R 777 /usr/local

# Written by the agent when a guest starts.
: > /etc/resolv.conf
chmod 644 /etc/resolv.conf
printf 'sandbox\n' > /etc/hostname
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' > /etc/hosts
chmod 644 /etc/hostname /etc/hosts
rm -f /etc/machine-id

# Caches, and what differs from build to build for no reason.
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/ldconfig/aux-cache
find /var/log -type f -delete
find /usr/share/doc /usr/share/man /usr/share/info -mindepth 1 -delete 2> /dev/null || true
