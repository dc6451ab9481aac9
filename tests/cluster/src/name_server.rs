//! `CoreDNS` on loopback, with a zone that a test edits.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::ports::free_ports;
use crate::process::Process;
use crate::{ClusterError, tools};

/// A server that is not ready by then never will be.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often the zone's file is looked at; `CoreDNS` adds to it a little by chance.
const RELOAD: Duration = Duration::from_millis(100);
/// Tries to start, each with a port of its own: somebody else may take one in between.
const TRIES: usize = 3;

/// A DNS server for `example.com`, which answers SERVFAIL for everything below `broken.example.net`, and refuses the
/// rest. Dropping it ends it.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    program: PathBuf,
    process: Option<Process>,
    serial: u32,
    folder: TempDir,
}

impl NameServer {
    /// Starts one whose zone has nothing but its own records, and waits until it answers.
    pub async fn start() -> Result<Self, ClusterError> {
        let folder = tempfile::tempdir().map_err(ClusterError::io("a temporary folder"))?;
        let program = tools::folder().await?.join("coredns");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { address, program, process: None, serial: 0, folder };
        server.set_records("")?;
        let mut tries = 1;
        loop {
            server.address.set_port(free_ports::<1>()?[0]);
            match server.resume().await {
                Err(ClusterError::Server { .. }) if tries < TRIES => tries += 1,
                other => return other.map(|()| server),
            }
        }
    }

    /// Where it answers, by UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the zone's records, lines as in a zone's file; names are relative to `example.com`. Served a moment
    /// later.
    pub fn set_records(&mut self, records: &str) -> Result<(), ClusterError> {
        self.serial += 1;
        let zone = format!(
            "$ORIGIN example.com.\n@ 1 IN SOA ns hostmaster {} 3600 600 86400 1\n@ 1 IN NS ns\nns 1 IN A 127.0.0.1\n{records}\n",
            self.serial
        );
        let write = || {
            let (new, zone_file) = (self.folder.path().join("zone.new"), self.folder.path().join("zone"));
            std::fs::write(&new, zone)?;
            std::fs::rename(new, zone_file)
        };
        write().map_err(ClusterError::io("writing the zone"))
    }

    /// Ends it; the zone stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again, on the same port.
    pub async fn resume(&mut self) -> Result<(), ClusterError> {
        let (folder, port) = (self.folder.path(), self.address.port());
        let configuration = format!(
            ".:{port} {{\n bind 127.0.0.1\n file {} example.com {{\n  reload {}ms\n }}\n template ANY ANY broken.example.net {{\n  rcode \
             SERVFAIL\n }}\n errors\n}}\n",
            folder.join("zone").display(),
            RELOAD.as_millis()
        );
        let corefile = folder.join("Corefile");
        std::fs::write(&corefile, configuration).map_err(ClusterError::io("writing the Corefile"))?;
        let arguments = ["-conf".to_owned(), corefile.display().to_string()];
        let mut process = Process::start("coredns", &self.program, &arguments, folder.join("log"))?;
        let began = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            process.check()?;
            if began.elapsed() > READY_WITHIN {
                return Err(process.error("was not ready in time".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = Some(process);
        Ok(())
    }
}
