#!/bin/sh
# Has BIRD announce this node's virtual addresses while the agent says that it is ready, and withdraw them while it does not.
# Run it as a service beside BIRD.
set -u
agent=${LB_SOCKET:-/run/lb-agent/lb-agent.sock}
bird=${BIRD_SOCKET:-/run/bird/bird.ctl}
said=

while true; do
    if curl --silent --fail --max-time 1 --output /dev/null --unix-socket "$agent" http://lb/readyz; then
        now=enable
    else
        now=disable
    fi
    # Said again until BIRD has heard it: it may be started later than this.
    if [ "$now" != "$said" ] && birdc -s "$bird" "$now" balanced > /dev/null; then
        said=$now
        echo "$now"
    fi
    sleep 1
done
