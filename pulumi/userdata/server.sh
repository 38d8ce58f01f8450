# shellcheck shell=bash
# A server: K3s with embedded etcd, the monitoring, and the daemon.

manifests=$NF_ROOT/var/lib/rancher/k3s/server/manifests

steps() {
    say "server $NF_INDEX starts"
    retry 24 facts
    mkdir -p "$manifests" "$NF_ROOT/etc/node-fleet"
    chmod 755 "$NF_ROOT/etc/node-fleet"
    know_secrets
    retry 10 fetch "$NF_BUNDLE" "$NF_BUNDLE_SHA256" "$NF_ROOT/var/lib/rancher/bundle.json"
    unpack "$NF_ROOT/var/lib/rancher/bundle.json"
    monitoring_secrets
    # What may fail comes before K3s, which is a member of etcd from its start on.
    install_daemon
    install_k3s
    k3s_config >"$NF_ROOT/etc/rancher/k3s/config.yaml"
    k3s_unit k3s notify server
    retry 120 api_is_ready
    # It waits for the service account's token, which K3s makes of the bundle's manifests.
    retry 24 node-fleet-kubeconfig
    systemctl enable --now node-fleet.service
}

# Prints 64 hexadecimal digits that nobody can guess.
random() {
    od -An -vtx1 -N32 /dev/urandom | tr -d ' \n'
}

# The first server makes what has no value yet. The others wait for it.
know_secrets() {
    own_token=
    if [[ $NF_INDEX == 0 ]]; then
        own_token=$(random)
        retry 24 make_secret "$NF_SERVER_TOKEN" "$own_token"
        retry 24 make_secret "$NF_AGENT_TOKEN" "$(random)"
        retry 24 make_secret "$NF_DAEMON_TOKEN" "$(random)"
        retry 24 make_secret "$NF_PROMETHEUS" "{\"username\":\"node-fleet\",\"password\":\"$(random)\"}"
    fi
    retry 120 learn agent_token "$NF_AGENT_TOKEN"
    know_credentials
}

# What the monitoring's credentials are made of.
know_credentials() {
    local prometheus
    retry 120 learn server_token "$NF_SERVER_TOKEN"
    retry 120 learn prometheus "$NF_PROMETHEUS"
    prometheus_user=$(field username <<<"$prometheus")
    prometheus_password=$(field password <<<"$prometheus")
}

# Gives a secret a value unless it has one. Only Secrets Manager's word that it has none counts.
make_secret() {
    local status=0 text
    secret "$1" >/dev/null || status=$?
    if ((status != 3)); then
        return "$status"
    fi
    text=$(python3 -Ic 'import json, sys; print(json.dumps({"SecretId": sys.argv[1], "ClientRequestToken": sys.argv[2], "SecretString": sys.stdin.read()}))' \
        "$1" "$(cat /proc/sys/kernel/random/uuid)" < <(printf '%s' "$2")) || return 1
    secrets_manager PutSecretValue <<<"$text" >/dev/null || return 1
    say "made a value for $1"
}

# Lays out the bundle's files: manifests for K3s to apply, dashboards, the daemon's configuration.
unpack() {
    NF_ROOT=$NF_ROOT python3 -I - "$1" <<'END'
import json, os, pathlib, sys

root = pathlib.Path(os.environ["NF_ROOT"] or "/")
places = {"manifests": "var/lib/rancher/k3s/server/manifests", "daemon": "etc/node-fleet"}
for name, text in json.load(open(sys.argv[1])).items():
    kind, _, file = name.partition("/")
    if "/" in file or file in ("", ".", ".."):
        sys.exit(f"the bundle has a file `{name}`; right would be KIND/FILE")
    path = root / places[kind] / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
END
}

# bcrypt of the password on standard input, as Prometheus wants it.
bcrypt() {
    perl -e 'my @a = (".", "/", "A".."Z", "a".."z", 0..9); open my $r, "<", "/dev/urandom"; read $r, my $b, 22;
        my $salt = join "", map { $a[ord($_) % 64] } split //, $b; substr($salt, 21, 1) = ".";
        my $p = <STDIN>; my $h = crypt($p, "\$2b\$10\$$salt"); die "no bcrypt\n" unless $h && $h =~ /^\$2b\$10\$.{53}$/; print $h'
}

# What Prometheus and Grafana need to know each other, for K3s to apply. Readable for root alone.
monitoring_secrets() {
    local hash
    hash=$(printf '%s' "$prometheus_password" | bcrypt)
    cat >"$manifests/monitoring-secrets.yaml" <<END
apiVersion: v1
kind: Secret
metadata:
  name: prometheus-web
  namespace: monitoring
stringData:
  web.yml: |
    basic_auth_users:
      $prometheus_user: $hash
---
apiVersion: v1
kind: Secret
metadata:
  name: prometheus-credentials
  namespace: monitoring
stringData:
  username: "$prometheus_user"
  password: "$prometheus_password"
END
    # Grafana's administrator is made once: on every server the same, from what only servers know.
    cat >>"$manifests/monitoring-secrets.yaml" <<END
---
apiVersion: v1
kind: Secret
metadata:
  name: grafana-admin
  namespace: monitoring
stringData:
  password: "$(printf 'grafana %s' "${server_token:?}" | sha256sum | cut -c 1-40)"
END
}

# Another server answers: then there is a cluster to join, for the first one too when it is replaced.
# The name comes last of all at the first `pulumi up`; that it is not there is remembered for 900 s.
cluster_exists() {
    resolvectl flush-caches || true
    curl -fsSk --max-time 5 -o /dev/null "${NF_API:-https://$NF_SERVER:6443}/ping" 2>/dev/null
}

# No other server is part of the stack. User data is as old as the instance's entry in it; the name
# knows those that came later.
is_the_only_one() {
    [[ $NF_SERVERS == 1 ]] && (($(getent ahostsv4 "$NF_SERVER" | cut -d ' ' -f 1 | sort -u | wc -l) <= 1))
}

# Two clusters under one name and one token would share workers, ledger and instances. That nobody
# answers just now proves no cluster's end, so silence alone founds none: only a token that this very
# boot made, that there is no other server, or the word of an operator (README, "Replace a server").
may_found() {
    [[ $NF_INDEX == 0 ]] || return 1
    [[ ${server_token:?} == "$own_token" || ${NF_FOUND:-} == true ]] || is_the_only_one
}

# By it those are let in who are far from the private name.
public_address() {
    local session
    session=$(metadata_session) && public=$(metadata "$session" meta-data/public-ipv4)
}

k3s_config() {
    local names='"'$NF_SERVER'"'
    if [[ $NF_OPEN == true ]]; then
        retry 24 public_address
        names+=', "'$public'"'
    fi
    if may_found && ! cluster_exists; then
        printf 'cluster-init: true\n'
    else
        # 20 minutes: longer than any resolver on the way remembers that there is no such name.
        if ! retry 240 cluster_exists >&2; then
            say "no server answers at $NF_SERVER, and this one founds no cluster beside it: see \"Replace a server\" in pulumi/README.md" >&2
            return 1
        fi
        printf 'server: "https://%s:6443"\n' "$NF_SERVER"
    fi
    cat <<END
token: "${server_token:?}"
agent-token: "${agent_token:?}"
tls-san: [$names]
cluster-cidr: "$NF_POD_NETWORK"
secrets-encryption: true
# Nodes carry EC2's provider id, and nothing listens for the world.
disable-cloud-controller: true
disable: ["servicelb", "traefik"]
# Workloads belong on the workers; without them the daemon would see no need for any.
node-taint: ["CriticalAddonsOnly=true:NoExecute"]
END
    node_config "server-${instance:?}"
}

api_is_ready() {
    [[ $("$NF_ROOT/usr/local/bin/k3s" kubectl get --raw /readyz 2>/dev/null) == ok ]]
}

# The package starts nothing, and leaves a configuration alone that is there already.
install_daemon() {
    local package=$NF_ROOT/var/cache/node-fleet.deb
    mkdir -p "$NF_ROOT/var/cache"
    retry 10 fetch "$NF_PACKAGE_SOURCE" "$NF_PACKAGE_SHA256" "$package"
    # The first boot's own upgrades hold the lock for minutes.
    DEBIAN_FRONTEND=noninteractive retry 10 apt-get install -y -q -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold "$package"
    node-fleet check --config "$NF_ROOT/etc/node-fleet/node-fleet.toml"
    confine_daemon
}

# Security groups do not see what pods send over flannel's network, by which the addresses of a
# server's bridge are reached from every node: the daemon takes nothing from there.
confine_daemon() {
    local folder=$NF_ROOT/etc/systemd/system/node-fleet.service.d interface
    interface=$(ip -o -4 route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p;q')
    [[ -n $interface ]] || return 1
    mkdir -p "$folder"
    printf '[Service]\nRestrictNetworkInterfaces=lo %s\n' "$interface" >"$folder/interfaces.conf"
}

# An API that does not answer is seen by the workers, the daemon's silence by the alarm on its
# heartbeat; the topic is told the reason's place. The instance stays, to be looked at, and K3s with
# it: of two members of etcd none may stop, or the cluster does.
failed() {
    facts || true
    systemctl disable --now node-fleet.service || true
    signed sns --data-urlencode Action=Publish --data-urlencode Version=2010-03-31 --data-urlencode "TopicArn=$NF_ALARMS" \
        --data-urlencode "Subject=node-fleet: server $NF_INDEX of $NF_CLUSTER did not boot" \
        --data-urlencode "Message=${instance:-An instance}: see journalctl -t node-fleet-boot" -o /dev/null "$(endpoint sns)/"
}

# For an operator, on a server that runs: brings it to other versions, and to a newer bundle. K3s comes
# first, since the bundle and the daemon may need what it has.
upgrade() {
    if (($# != 6)); then
        say 'right would be: upgrade K3S_VERSION K3S_SOURCE K3S_SHA256 PACKAGE_SOURCE PACKAGE_SHA256 BUNDLE_SHA256'
        return 2
    fi
    NF_K3S_VERSION=$1 NF_K3S_SOURCE=$2 NF_K3S_SHA256=$3 NF_PACKAGE_SOURCE=$4 NF_PACKAGE_SHA256=$5
    retry 10 fetch "$NF_BUNDLE" "$6" "$NF_ROOT/var/lib/rancher/bundle.json"
    install_k3s
    systemctl restart k3s.service
    retry 120 api_is_ready
    unpack "$NF_ROOT/var/lib/rancher/bundle.json"
    install_daemon
    systemctl daemon-reload
    systemctl restart node-fleet.service
    say "upgraded to $NF_K3S_VERSION"
}

# For an operator, on a server that runs: gives the monitoring the password that Secrets Manager has.
credentials() {
    know_credentials
    monitoring_secrets
    say "K3s applies $manifests/monitoring-secrets.yaml"
}

case ${1:-boot} in
    boot | upgrade | credentials) "${@:-boot}" ;;
    *)
        say "\`$1\` is unknown; right would be \`upgrade\`, \`credentials\`, or nothing for the boot"
        exit 2
        ;;
esac
