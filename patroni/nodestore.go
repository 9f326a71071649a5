package patroni

// Etcd3Config is the node's etcd, spoken to through its JSON gateway.
type Etcd3Config struct {
	Hosts []string `json:"hosts"` // host:port
	// UseProxies keeps Patroni to Hosts; else it asks them for the addresses that the etcd servers have of each other.
	UseProxies bool `json:"use_proxies,omitempty"`

	Protocol string `json:"protocol,omitempty"`
	Username string `json:"username,omitempty"`
	Password Secret `json:"password,omitempty"`
	CACert   string `json:"cacert,omitempty"`
	Cert     string `json:"cert,omitempty"`
	Key      string `json:"key,omitempty"`
}

// ConsulConfig is the node's Consul agent: Patroni knows one address. Its session lasts for half of Patroni's ttl, since
// Consul may take twice as long to end it; Consul allows no less than 10 seconds.
type ConsulConfig struct {
	Host       string `json:"host"`             // host:port
	Token      Secret `json:"token,omitempty"`  // needs key_prefix and session_prefix write
	Datacenter string `json:"dc,omitempty"`     // empty: the agent's own
	Scheme     string `json:"scheme,omitempty"` // "http" or "https"; empty: "http"
	CACert     string `json:"cacert,omitempty"`
	Cert       string `json:"cert,omitempty"`
	Key        string `json:"key,omitempty"`    // empty: it is in the same file as Cert
	Verify     *bool  `json:"verify,omitempty"` // the server's certificate; nil: yes

	// Consistency of Patroni's reads: "consistent" (the leading server asks the others first), "default" (one that was
	// deposed may answer for a moment) or "stale" (any server may). Empty: "default".
	Consistency string `json:"consistency,omitempty"`
	// Checks are those that end the session when they fail. Empty: none, and the session ends by its ttl alone.
	Checks []string `json:"checks,omitempty"`

	// RegisterService makes the cluster a service of Consul, with each member's role as a tag.
	RegisterService           bool     `json:"register_service,omitempty"`
	ServiceTags               []string `json:"service_tags,omitempty"`
	ServiceCheckInterval      string   `json:"service_check_interval,omitempty"` // "5s"; empty: that
	ServiceCheckTLSServerName string   `json:"service_check_tls_server_name,omitempty"`
}

// ZooKeeperConfig is the node's ZooKeeper. Its session lasts for Patroni's ttl, within what the servers allow: from 2 to
// 20 of their ticks, unless they are told otherwise.
type ZooKeeperConfig struct {
	Hosts []string `json:"hosts"` // host:port

	UseTLS      bool   `json:"use_ssl,omitempty"`
	CACert      string `json:"cacert,omitempty"`
	Cert        string `json:"cert,omitempty"`
	Key         string `json:"key,omitempty"`
	KeyPassword Secret `json:"key_password,omitempty"`
	Verify      *bool  `json:"verify,omitempty"` // the server's certificate; nil: yes

	// SetACLs are the permissions of the nodes that Patroni makes (CREATE, READ, WRITE, DELETE, ADMIN, ALL), by the subject
	// of a certificate. Empty: everybody may do everything.
	SetACLs map[string][]string `json:"set_acls,omitempty"`
	// AuthData are credentials by scheme: "user:password" for "digest".
	AuthData map[string]Secret `json:"auth_data,omitempty"`
}
