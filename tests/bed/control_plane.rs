//! A real Kubernetes control plane: etcd, API server, scheduler and controllers on loopback, RBAC on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::processes::{Process, free_port};
use crate::tools::{Tools, in_repository};
use crate::wait::{Seen, until};

const ADMIN_TOKEN: &str = "the-bed-itself";
/// The bearer token of the daemon.
pub const DAEMON_TOKEN: &str = "canary-of-kubernetes";
const START_LIMIT: Duration = Duration::from_secs(60);

/// The running control plane.
pub struct ControlPlane {
    // In the order in which they are dropped: the API server hangs on a dead etcd.
    controllers: Process,
    scheduler: Process,
    api_server: Process,
    etcd: Process,
    /// `https://127.0.0.1:PORT`
    pub url: String,
    /// Kubeconfig of the cluster administrator: the bed itself.
    pub admin: PathBuf,
    /// Kubeconfig of the daemon, with nothing but the rights of the shipped role.
    pub daemon: PathBuf,
    audit_log: PathBuf,
}

impl ControlPlane {
    /// Starts the four processes and waits until the API server is ready.
    pub async fn start(tools: &Tools, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (etcd_port, peer_port, secure_port) = (free_port()?, free_port()?, free_port()?);
        let url = format!("https://127.0.0.1:{secure_port}");
        service_account_key(folder)?;
        let user = daemon_user()?;
        fs::write(folder.join("tokens.csv"), tokens(&user))?;
        fs::write(folder.join("audit-policy.yaml"), audit_policy(&user))?;
        let audit_log = folder.join("audit.log");
        let admin = write_kubeconfig(folder, "admin", &url, ADMIN_TOKEN)?;
        let daemon = write_kubeconfig(folder, "daemon", &url, DAEMON_TOKEN)?;

        let start = |name: &str, flags: Vec<String>| {
            let arguments: Vec<String> = std::iter::once(name.to_owned()).chain(flags).collect();
            Process::start(name, &tools.control_plane, &arguments, &[], &folder.join(format!("{name}.log")))
        };
        let etcd = start("etcd", etcd_flags(folder, etcd_port, peer_port))?;
        let mut api_server = start("kube-apiserver", api_server_flags(folder, etcd_port, secure_port))?;
        wait_until_ready(&mut api_server, folder, &admin).await?;
        let scheduler = start("kube-scheduler", client_flags(&admin))?;
        let controllers = start("kube-controller-manager", client_flags(&admin))?;
        Ok(Self { controllers, scheduler, api_server, etcd, url, admin, daemon, audit_log })
    }

    /// A client for the administrator.
    pub async fn client(&self) -> Result<kube::Client> {
        client(&self.admin).await
    }

    /// A client with the daemon's own rights.
    pub async fn daemon_client(&self) -> Result<kube::Client> {
        client(&self.daemon).await
    }

    /// The API server's log of what the daemon asked it, a JSON object a line.
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// The API server's process, for scenarios that stop and continue it.
    pub fn api_server(&self) -> &Process {
        &self.api_server
    }

    /// Fails when one of the four has died.
    pub fn must_run(&mut self) -> Result<()> {
        for process in [&mut self.etcd, &mut self.api_server, &mut self.scheduler, &mut self.controllers] {
            process.must_run()?;
        }
        Ok(())
    }

    /// Stops everything, the API server before etcd.
    pub fn stop(&mut self) {
        for process in [&mut self.controllers, &mut self.scheduler] {
            process.stop(Duration::from_millis(500));
        }
        self.api_server.stop(Duration::from_millis(500));
        self.etcd.stop(Duration::from_secs(2));
    }
}

/// Who the daemon is: the subject that the shipped binding names, so that a
/// binding which names somebody else shows here and not at a user's site.
fn daemon_user() -> Result<String> {
    let path = in_repository("packaging/kubernetes/rbac.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("read the shipped role {}", path.display()))?;
    first_subject(&text).with_context(|| format!("{} binds its role to no subject", path.display()))
}

fn tokens(user: &str) -> String {
    let groups = if user.starts_with("system:serviceaccount:") { ",\"system:serviceaccounts\"" } else { "" };
    format!("{ADMIN_TOKEN},admin,1,\"system:masters\"\n{DAEMON_TOKEN},{user},2{groups}\n")
}

/// Logs what the daemon asks, and nobody else; a watch when it begins.
fn audit_policy(user: &str) -> String {
    format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
         rules:\n- level: Metadata\n  users: [\"{user}\"]\n- level: None\n"
    )
}

/// The user name of the first subject in a manifest of bindings.
fn first_subject(manifest: &str) -> Option<String> {
    let after = manifest.split("\nsubjects:").nth(1)?;
    let mut fields = std::collections::BTreeMap::new();
    for line in after.lines().skip(1) {
        let is_next_subject = line.trim_start().starts_with("- ") && fields.contains_key("kind");
        if is_next_subject || (!line.starts_with([' ', '-']) && !line.trim().is_empty()) {
            break;
        }
        if let Some((key, value)) = line.trim_start_matches([' ', '-']).split_once(':') {
            fields.insert(key.trim().to_owned(), value.trim().trim_matches('"').to_owned());
        }
    }
    let name = fields.get("name")?;
    match fields.get("kind")?.as_str() {
        "ServiceAccount" => Some(format!("system:serviceaccount:{}:{name}", fields.get("namespace")?)),
        _ => Some(name.clone()),
    }
}

async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let parsed = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
    // Else a refused eviction (429) is tried again here, for half a minute, unseen.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

async fn wait_until_ready(api_server: &mut Process, folder: &Path, admin: &Path) -> Result<()> {
    let certificate = folder.join("certs/apiserver.crt");
    until("the API server to be ready", START_LIMIT, async || {
        api_server.must_run()?;
        if !certificate.exists() {
            return Ok(Seen::NotYet("no certificate".to_owned()));
        }
        let request = axum::http::Request::get("/readyz").body(Vec::new())?;
        let answer = client(admin).await?.request_text(request).await?;
        Ok(if answer == "ok" { Seen::Done(()) } else { Seen::NotYet(answer) })
    })
    .await
}

fn etcd_flags(folder: &Path, client_port: u16, peer_port: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]
}

fn api_server_flags(folder: &Path, etcd_port: u16, secure_port: u16) -> Vec<String> {
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={secure_port}"),
        format!("--cert-dir={}", folder.join("certs").display()),
        "--service-account-issuer=https://node-fleet.bed".to_owned(),
        format!("--service-account-key-file={}", folder.join("service-account.pub").display()),
        format!("--service-account-signing-key-file={}", folder.join("service-account.key").display()),
        "--authorization-mode=RBAC".to_owned(),
        format!("--token-auth-file={}", folder.join("tokens.csv").display()),
        "--service-cluster-ip-range=10.43.0.0/16".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        format!("--audit-policy-file={}", folder.join("audit-policy.yaml").display()),
        format!("--audit-log-path={}", folder.join("audit.log").display()),
    ]
}

fn client_flags(kubeconfig: &Path) -> Vec<String> {
    // The bed is meant to be harsh on the daemon and not on itself: the default
    // of 20 requests a second would make 3,000 pods take minutes to bind.
    let rate = ["--kube-api-qps=500".to_owned(), "--kube-api-burst=1000".to_owned()];
    let own = [format!("--kubeconfig={}", kubeconfig.display()), "--leader-elect=false".to_owned(), "--secure-port=0".to_owned()];
    own.into_iter().chain(rate).collect()
}

fn service_account_key(folder: &Path) -> Result<()> {
    let (private, public) = (folder.join("service-account.key"), folder.join("service-account.pub"));
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private.to_string_lossy()])?;
    openssl(&["ec", "-in", &private.to_string_lossy(), "-pubout", "-out", &public.to_string_lossy()])
}

fn openssl(arguments: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(arguments).output().context("start openssl")?;
    ensure!(output.status.success(), "openssl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The certificate that the API server makes for itself carries its own authority.
fn write_kubeconfig(folder: &Path, name: &str, url: &str, token: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.kubeconfig"));
    let authority = folder.join("certs/apiserver.crt");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bed\n\
         clusters:\n- name: bed\n  cluster:\n    server: {url}\n    certificate-authority: {}\n\
         users:\n- name: {name}\n  user:\n    token: {token}\n\
         contexts:\n- name: bed\n  context:\n    cluster: bed\n    user: {name}\n",
        authority.display()
    );
    fs::write(&path, text)?;
    Ok(path)
}
