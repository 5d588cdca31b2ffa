#!/usr/bin/env bash
# Makes a Debian 12 box for vagrant-libvirt from this machine's own package sources: for where no catalogue of boxes is
# within reach. Needs root, loop devices and, by apt: mmdebstrap extlinux syslinux-common fdisk e2fsprogs qemu-utils vagrant
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: build.sh FILE.box    (then: vagrant box add --name lb/debian-12 FILE.box)" >&2
    exit 2
fi
box=$(realpath -m "$1")
# Where packages come from, then and in the machines: the sources of this machine if it is a Debian 12, else Debian's.
sources=()
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if grep -q bookworm "$file" 2> /dev/null; then
        sources=("$file")
        break
    fi
done

work=$(mktemp -d "${TMPDIR:-/tmp}/lb-box.XXXXXX")
loop=
clean_up() {
    if mountpoint --quiet "$work/root"; then umount "$work/root"; fi
    if [ -n "$loop" ]; then losetup --detach "$loop"; fi
    rm -rf "$work"
}
trap clean_up EXIT

# One partition, after the space for the boot code.
truncate --size 8G "$work/disk"
echo 'start=2048, type=83, bootable' | sfdisk --quiet "$work/disk"
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$work/disk" conv=notrunc status=none
loop=$(losetup --find --show --offset $((2048 * 512)) "$work/disk")
# extlinux reads no 64-bit file system.
mkfs.ext4 -q -O '^64bit,^metadata_csum' -L root "$loop"
mkdir "$work/root"
mount "$loop" "$work/root"

# What a box must have: the vagrant user with its well-known key, ssh, sudo, and DHCP on the first card. Curl and rsync are
# what the usual boxes bring, too.
packages=linux-image-cloud-amd64,systemd-sysv,udev,dbus,openssh-server,sudo,ifupdown,isc-dhcp-client,iproute2
packages+=,rsync,ca-certificates,e2fsprogs
mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$work/tree.tar" "${sources[@]}"
tar --extract --file "$work/tree.tar" --directory "$work/root" --exclude './dev/*' --numeric-owner --xattrs

root=$work/root
echo 'LABEL=root / ext4 defaults,noatime 0 1' > "$root/etc/fstab"
echo lab > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 lab\n' > "$root/etc/hosts"
printf 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n' > "$root/etc/network/interfaces"
chroot "$root" useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/vagrant"
chmod 440 "$root/etc/sudoers.d/vagrant"
key=$(find /usr/share/rubygems-integration /opt/vagrant -path '*/keys/vagrant.pub' -print -quit 2> /dev/null || true)
[ -n "$key" ] || { echo "cannot find vagrant's public key (keys/vagrant.pub): is vagrant installed?" >&2; exit 1; }
install -d -m 700 "$root/home/vagrant/.ssh"
install -m 600 "$key" "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
# The name of the first card must not depend on the slot that the provider puts it into.
mkdir -p "$root/boot/extlinux"
cat > "$root/boot/extlinux/extlinux.conf" <<'CONF'
default linux
prompt 0
timeout 0
label linux
    kernel /vmlinuz
    append initrd=/initrd.img root=LABEL=root ro net.ifnames=0 quiet
CONF
extlinux --install "$root/boot/extlinux"
umount "$root"
losetup --detach "$loop"
loop=

qemu-img convert -c -O qcow2 "$work/disk" "$work/box.img"
echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 8}' > "$work/metadata.json"
echo '' > "$work/Vagrantfile"
tar --create --file "$box" --directory "$work" metadata.json Vagrantfile box.img
echo "made $box ($(du --human-readable "$box" | cut -f 1))"
