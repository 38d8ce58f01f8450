# shellcheck shell=bash
# A worker: joins the cluster, or gives its instance back.

steps() {
    say "a worker of the pool $NF_POOL starts"
    retry 24 facts
    # The first server may still be making it.
    retry 120 learn agent_token "$NF_AGENT_TOKEN"
    install_k3s
    {
        printf 'server: "https://%s:6443"\n' "$NF_SERVER"
        printf 'token: "%s"\n' "${agent_token:?}"
        # Instance ids are never given twice, and so no name is.
        node_config "$NF_POOL-${instance:?}"
        printf '  - "node-fleet.io/pool=%s"\n' "$NF_POOL"
    } >"$NF_ROOT/etc/rancher/k3s/config.yaml"
    k3s_unit k3s-agent exec agent
    retry 60 kubelet_is_well
}

kubelet_is_well() {
    curl -fsS --max-time 5 -o /dev/null "${NF_KUBELET:-http://127.0.0.1:10248}/healthz" 2>/dev/null
}

# The launch template makes a shutdown from within a termination, so EC2 and the daemon see that it
# is gone, and it costs nothing more. The journal goes with it; the console's text stays for an hour.
failed() {
    systemctl poweroff --no-block
}

boot
