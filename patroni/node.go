package patroni

import "net/netip"

// NodeConfig is the patroni.yml of one node. Sections that Patroni has and this type has not can be given in Extra.
type NodeConfig struct {
	Scope     string `json:"scope"`     // the cluster's name, without a slash
	Namespace string `json:"namespace"` // "/service"
	Name      string `json:"name"`      // the member's name, unique in the cluster

	REST RESTConfig `json:"restapi"`
	// The configuration store: one of these, or another one in Extra.
	Consul    *ConsulConfig    `json:"consul,omitempty"`
	Etcd3     *Etcd3Config     `json:"etcd3,omitempty"`
	ZooKeeper *ZooKeeperConfig `json:"zookeeper,omitempty"`

	Bootstrap BootstrapConfig `json:"bootstrap,omitzero"`
	Postgres  PostgresConfig  `json:"postgresql"`
	Tags      map[string]any  `json:"tags,omitempty"`

	Extra map[string]any `json:"-"` // further top-level keys
}

// RESTConfig is the node's REST API.
type RESTConfig struct {
	Listen         netip.AddrPort `json:"listen"`
	ConnectAddress netip.AddrPort `json:"connect_address"`
	Authentication *Credentials   `json:"authentication,omitempty"` // nil: unsafe calls need no password
}

// Credentials of one user.
type Credentials struct {
	Username string `json:"username"`
	Password Secret `json:"password,omitempty"`
}

// BootstrapConfig says how a cluster comes into being. It is used once.
type BootstrapConfig struct {
	DCS           map[string]any `json:"dcs"`              // the first dynamic configuration
	InitDB        []any          `json:"initdb,omitempty"` // words, or maps of one option
	PostBootstrap string         `json:"post_bootstrap,omitempty"`
}

// PostgresConfig is the node's PostgreSQL.
type PostgresConfig struct {
	Listen         netip.AddrPort    `json:"listen"`
	ConnectAddress netip.AddrPort    `json:"connect_address"`
	ProxyAddress   string            `json:"proxy_address,omitempty"` // where poolers reach it, if elsewhere
	DataDir        string            `json:"data_dir"`
	BinDir         string            `json:"bin_dir,omitempty"`
	Pgpass         string            `json:"pgpass,omitempty"` // where Patroni keeps the passwords that it uses
	Authentication Authentication    `json:"authentication"`
	Parameters     map[string]string `json:"parameters,omitempty"`
	HBA            []string          `json:"pg_hba,omitempty"`
	BaseBackup     []any             `json:"basebackup,omitempty"` // options of pg_basebackup: words, or maps of one option
	BeforeStop     string            `json:"before_stop,omitempty"`
	PrePromote     string            `json:"pre_promote,omitempty"`   // runs on the new primary before it is promoted
	RecoveryConf   map[string]string `json:"recovery_conf,omitempty"` // settings of a replica: restore_command and the like
}

// Authentication is whom Patroni logs in as.
type Authentication struct {
	Superuser   Credentials  `json:"superuser"`
	Replication Credentials  `json:"replication"`
	Rewind      *Credentials `json:"rewind,omitempty"`
}
