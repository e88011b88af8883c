#!/usr/bin/env bash
# In the container: makes the guest's disk, with all that is mounted under /share, and boots it. What the guest tells
# goes to standard output; the exit code is that of check.sh, or 125 where the guest did not come so far, or not in time.
# Its settings: TESTS and SMOKE, see check.sh; MINUTES (180); MEMORY (6144, in MiB); KVM=1 where it is known to work: a
# host that is a virtual machine itself may have a /dev/kvm under which a guest stops in its first second.
set -euo pipefail

cp -a /share /guest/share
# The same work is done in the guest: how much slower that is, is how much longer its tests wait.
cat >/guest/share/work.py <<'PYTHON'
import time
begun = time.perf_counter()
sum(hash(str(number)) & 1 for number in range(1_000_000))
print(time.perf_counter() - begun)
PYTHON
chroot /guest python3 /share/work.py >/guest/share/host-seconds
printf 'TESTS=%q SMOKE=%q IMAGE=%q FULL_IMAGE=%q\n' "${TESTS:-}" "${SMOKE:-1}" "$IMAGE" "$FULL_IMAGE" >/guest/share/settings
# Files that a build of an image cannot change.
echo guest >/guest/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 guest\n' >/guest/etc/hosts
echo nameserver 10.0.2.3 >/guest/etc/resolv.conf

cd /var/lib/vm
truncate --size=24G disk
mke2fs -q -F -t ext4 -m 1 -E lazy_itable_init=1,lazy_journal_init=1 -d /guest disk
rm -rf /guest/share
echo "vm: the disk is made ($SECONDS s)"
model=max,la57=off accelerator=tcg,thread=multi,tb-size=1024
[ -z "${KVM:-}" ] || { model=host accelerator=kvm; }
code=
while IFS= read -r line; do
  case $line in "vm: ended with "*) code=${line##* } ;; *) printf '%s\n' "$line" ;; esac
done < <(timeout "${MINUTES:-180}m" qemu-system-x86_64 \
  -nodefaults -no-user-config -display none -no-reboot -M q35,sata=off,smbus=off,vmport=off,hpet=off,usb=off \
  -accel "$accelerator" -cpu "$model" -smp "$(nproc)" -m "${MEMORY:-6144}" -rtc clock=host \
  -kernel /guest/boot/vmlinuz-* -initrd /guest/boot/initrd.img-* \
  -append "root=/dev/vda rw rootfstype=ext4 console=ttyS0 net.ifnames=0 tsc=reliable no_timer_check nowatchdog panic=-1" \
  -serial file:console.log -serial file:/dev/stdout \
  -drive if=none,id=disk,file=disk,format=raw,cache=unsafe,aio=threads,discard=unmap -device virtio-blk-pci,drive=disk \
  -netdev user,id=net -device virtio-net-pci,netdev=net,romfile= </dev/null 2>&1)
echo "vm: $((SECONDS / 60)) minutes in all"
[ -n "$code" ] || { echo "vm: the guest did not tell how its tests ended"; tail -n 40 console.log; exit 125; }
exit "$code"
