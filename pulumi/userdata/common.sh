# shellcheck shell=bash
# What servers and workers have in common. The program puts the NF_… values before it, and
# server.sh or worker.sh after it.
set -euo pipefail
umask 077

NF_ROOT=${NF_ROOT:-}
NF_METADATA=${NF_METADATA:-http://169.254.169.254}
NF_PAUSE=${NF_PAUSE:-5}
NF_TRIES=${NF_TRIES:-120}

# To the journal, where the script's output goes, and to the console, which EC2 shows without a login.
say() {
    printf 'node-fleet boot: %s\n' "$*"
    { printf 'node-fleet boot: %s\n' "$*" >/dev/console; } 2>/dev/null || true
}

# Tries a command TIMES times, $NF_TRIES at most.
retry() {
    local times=$1 try
    shift
    if ((times > NF_TRIES)); then
        times=$NF_TRIES
    fi
    for ((try = 1; try <= times; try++)); do
        if "$@"; then
            return 0
        fi
        if ((try < times)); then
            sleep "$NF_PAUSE"
        fi
    done
    say "gave up after $times tries: $1"
    return 1
}

# A session with the instance's metadata, version 2 alone: without one nothing is answered.
metadata_session() {
    curl -fsS --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$NF_METADATA/latest/api/token"
}

metadata() {
    curl -fsS --max-time 5 -H @- "$NF_METADATA/latest/$2" <<<"X-aws-ec2-metadata-token: $1"
}

facts() {
    local session
    session=$(metadata_session) &&
        instance=$(metadata "$session" meta-data/instance-id) &&
        zone=$(metadata "$session" meta-data/placement/availability-zone) &&
        instance_type=$(metadata "$session" meta-data/instance-type) &&
        market=$(metadata "$session" meta-data/instance-life-cycle)
}

# Prints values of the JSON object on standard input, one a line.
field() {
    python3 -Ic 'import json, sys; it = json.load(sys.stdin); print(*(it[key] for key in sys.argv[1:]), sep="\n")' "$@"
}

# Where a service answers.
endpoint() {
    echo "${AWS_ENDPOINT_URL:-https://$1.$NF_REGION.amazonaws.com}"
}

# curl with the signature of the instance's role; the keys pass by a pipe, never by the arguments.
signed() {
    local service=$1 session role keys
    shift
    session=$(metadata_session) || return 1
    role=$(metadata "$session" meta-data/iam/security-credentials/) || return 1
    keys=$(metadata "$session" "meta-data/iam/security-credentials/$role" | field AccessKeyId SecretAccessKey Token) || return 1
    mapfile -t keys <<<"$keys"
    curl -sS --max-time "${NF_TIMEOUT:-30}" --aws-sigv4 "aws:amz:$NF_REGION:$service" \
        --config <(printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\n' "${keys[@]}") "$@"
}

# Calls Secrets Manager with the JSON on standard input. Status 3: the secret has no value yet.
secrets_manager() {
    local answer status
    answer=$(signed secretsmanager -H 'content-type: application/x-amz-json-1.1' -H "x-amz-target: secretsmanager.$1" \
        --data-binary @- -w '\n%{http_code}' "$(endpoint secretsmanager)/") || return 1
    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    case $status in
        200) printf '%s\n' "$answer" ;;
        *)
            if [[ $answer == *ResourceNotFoundException* ]]; then
                return 3
            fi
            # An error's text names the secret, never its value.
            say "secretsmanager $1: status $status: ${answer:0:300}" >&2
            return 1
            ;;
    esac
}

# Prints a secret's value.
secret() {
    local answer
    answer=$(secrets_manager GetSecretValue <<<"{\"SecretId\":\"$1\"}") || return
    field SecretString <<<"$answer"
}

# Sets the variable VARIABLE to the secret's value.
learn() {
    local value
    value=$(secret "$2") && [[ -n $value ]] && printf -v "$1" '%s' "$value"
}

# Puts the file of SOURCE, whose checksum must be SHA256, at FILE.
fetch() {
    local source=$1 sha256=$2 file=$3 bucket key
    local empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    case $source in
        s3://*)
            bucket=${source#s3://}
            bucket=${bucket%%/*}
            key=${source#"s3://$bucket/"}
            # S3 reads a raw + as a space; of what else settings.ts lets pass nothing needs an escape.
            key=${key//+/%2B}
            NF_TIMEOUT=300 signed s3 -f -H "x-amz-content-sha256: $empty" -o "$file.part" "$(endpoint s3)/$bucket/$key" || return 1
            ;;
        *) curl -fsSL --proto '=https' --max-time 300 -o "$file.part" "$source" || return 1 ;;
    esac
    if ! printf '%s  %s\n' "$sha256" "$file.part" | sha256sum --check --status; then
        say "$source is not the file with the checksum $sha256"
        rm -f "$file.part"
        return 1
    fi
    mv "$file.part" "$file"
}

install_k3s() {
    mkdir -p "$NF_ROOT/usr/local/bin" "$NF_ROOT/etc/rancher/k3s" "$NF_ROOT/etc/systemd/system"
    local found next=$NF_ROOT/usr/local/bin/k3s.next
    retry 10 fetch "$NF_K3S_SOURCE" "$NF_K3S_SHA256" "$next"
    chmod 755 "$next"
    found=$("$next" --version) || return 1
    if [[ $found != "k3s version $NF_K3S_VERSION "* ]]; then
        say "$NF_K3S_SOURCE is ${found%%$'\n'*}; right would be $NF_K3S_VERSION"
        return 1
    fi
    mv "$next" "$NF_ROOT/usr/local/bin/k3s"
    # On shutdown, a spot interruption's too, pods get their time before the network goes. What is
    # reserved is what the daemon's configuration says of every pool.
    cat >"$NF_ROOT/etc/rancher/k3s/kubelet.yaml" <<'END'
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
shutdownGracePeriod: 60s
shutdownGracePeriodCriticalPods: 15s
maxPods: 110
kubeReserved:
  cpu: 100m
  memory: 412Mi
END
    # The image's own limit of 30 s is read after the kubelet's (99-kubelet.conf), and a kubelet that
    # is given less than its period delays no shutdown at all.
    mkdir -p "$NF_ROOT/etc/systemd/logind.conf.d"
    ln -sfn /dev/null "$NF_ROOT/etc/systemd/logind.conf.d/unattended-upgrades-logind-maxdelay.conf"
    systemctl restart systemd-logind.service
}

# What K3s is told on every node. A value in quotes is JSON, and so YAML. The thresholds of eviction are an
# argument, since K3s before 1.32 gives some of its own as one, which beats the kubelet's file as a whole.
node_config() {
    cat <<END
node-name: "$1"
kubelet-arg:
  - "config=/etc/rancher/k3s/kubelet.yaml"
  - "provider-id=aws:///$zone/$instance"
  - "eviction-hard=memory.available<100Mi,nodefs.available<10%,imagefs.available<15%,nodefs.inodesFree<5%"
node-label:
  - "topology.kubernetes.io/region=$NF_REGION"
  - "topology.kubernetes.io/zone=$zone"
  - "node.kubernetes.io/instance-type=$instance_type"
  - "node-fleet.io/market=$market"
END
}

# The unit of K3s as its own installer writes it, but that the binary has been verified.
k3s_unit() {
    local name=$1 type=$2
    cat >"$NF_ROOT/etc/systemd/system/$name.service" <<END
[Unit]
Description=Lightweight Kubernetes ($3)
Wants=network-online.target
After=network-online.target

[Service]
Type=$type
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/k3s $3

[Install]
WantedBy=multi-user.target
END
    systemctl daemon-reload
    systemctl enable --now --no-block "$name.service"
}

# Runs a boot in the journal. One that fails ends in `failed`, wherever it failed: bash's `set -e`
# is off inside a condition, so the steps run in a shell of their own.
boot() {
    if [[ -z $NF_ROOT ]]; then
        exec > >(systemd-cat --identifier=node-fleet-boot) 2>&1
    fi
    local status=0
    set +e
    (
        set -e
        steps
    )
    status=$?
    set -e
    if ((status == 0)); then
        say 'done'
        return 0
    fi
    say "FAILED with status $status on the way into the cluster $NF_CLUSTER"
    failed || true
    exit 1
}
