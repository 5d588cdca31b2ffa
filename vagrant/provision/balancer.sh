#!/usr/bin/env bash
# Starts the agent on both interfaces, and declares the service of lab.toml.
set -euo pipefail
checkout=$1
shift

interfaces=()
for address in "$@"; do
    interfaces+=("$(ip -4 -oneline address show to "$address" | awk '{ print $2 }')")
done

install -d -m 750 /etc/lb-agent
printf 'interfaces = ["%s", "%s"]\n' "${interfaces[@]}" > /etc/lb-agent/config.toml
install -m 644 "$checkout/lb-agent/lb-agent.service" /etc/systemd/system/lb-agent.service
# Debian's default, 3, keeps tracepoints from whoever has CAP_PERFMON alone; the kernel's own is 2. Without them all works
# but the counters of what goes wrong after the verdict.
echo 'kernel.perf_event_paranoid = 2' > /etc/sysctl.d/90-lb-agent.conf
sysctl --quiet --load /etc/sysctl.d/90-lb-agent.conf
systemctl daemon-reload
systemctl enable lb-agent
systemctl restart lb-agent

# The kernel checks the program before it takes it: a second, on an emulated processor a minute.
deadline=$((SECONDS + 300))
until lb-agent status > /dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ] || systemctl is-failed --quiet lb-agent; then
        systemctl status --no-pager --lines 20 lb-agent || true
        echo "the agent does not answer" >&2
        exit 1
    fi
    sleep 0.2
done
lb-agent apply -f "$checkout/vagrant/lab.toml"
lb-agent status
