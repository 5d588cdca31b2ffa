#!/usr/bin/env bash
# Installs what was built, starts the agent on both interfaces, and declares the service of lab.toml.
set -euo pipefail
checkout=$1
shift

interfaces=()
for address in "$@"; do
    interfaces+=("$(ip -4 -oneline address show to "$address" | awk '{ print $2 }')")
done

# Packets whose next hop is not known yet are forwarded by the kernel.
sysctl --quiet --write net.ipv4.ip_forward=1

install -D -m 755 "$checkout/target/release/lb-agent" /usr/local/bin/lb-agent
install -d -m 750 /etc/lb-agent
printf 'interfaces = ["%s", "%s"]\n' "${interfaces[@]}" > /etc/lb-agent/config.toml
install -m 644 "$checkout/vagrant/provision/lb-agent.service" /etc/systemd/system/lb-agent.service
systemctl daemon-reload
systemctl enable lb-agent
systemctl restart lb-agent

for _ in $(seq 50); do
    if lb-agent status > /dev/null 2>&1; then
        lb-agent apply -f "$checkout/vagrant/lab.toml"
        lb-agent status
        exit 0
    fi
    sleep 0.2
done
journalctl --unit lb-agent --no-pager --lines 20
echo "the agent did not answer within 10 s" >&2
exit 1
