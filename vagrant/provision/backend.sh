#!/usr/bin/env bash
# A web server that says its name, and the way back to clients through the balancer.
set -euo pipefail
name=$1 client_network=$2 balancer=$3

ip route replace "$client_network" via "$balancer"

cat > /etc/nginx/conf.d/lab.conf <<NGINX
server {
    listen 8080;
    default_type text/plain;
    location / { return 200 "$name\n"; }
}
NGINX
rm -f /etc/nginx/sites-enabled/default
systemctl enable nginx
systemctl restart nginx
