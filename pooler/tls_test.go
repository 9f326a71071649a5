package pooler_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/pooler"
)

// The console is taken over from pgconn under TLS as well, and an ended context undoes no PAUSE there either.
func TestConsoleOverTLS(t *testing.T) {
	noGoroutines(t)
	a, b := servers(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	cert, key, pool := certificate(t)
	must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o644))
	pb := startBouncer(t, pooler.Ini{
		Settings: pooler.Params{
			"client_tls_sslmode": "require", "client_tls_cert_file": filepath.Join(dir, "cert.pem"), "client_tls_key_file": filepath.Join(dir, "key.pem"),
		},
		Databases: []pooler.Entry{db("app", a, nil)},
	}, nil)
	parse := func(user, database string) *pgconn.Config {
		c, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=require", pb.port, user, database))
		must(t, err)
		c.TLSConfig = &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
		return c
	}
	ctx := within(t, time.Minute)
	client, err := pgconn.ConnectConfig(ctx, parse("postgres", "app"))
	must(t, err)
	defer client.Close(ctx)
	_, err = ask(client, "BEGIN")
	must(t, err)
	local := pb.local()
	local.Connect = pooler.ConnectWith(parse("admin", "pgbouncer"))
	if err := giveUp(t, local); !errors.Is(err, context.Canceled) {
		t.Fatalf("Hold: %v", err)
	}
	time.Sleep(50 * time.Millisecond) // what would undo it has a moment to do so
	st, err := local.State(ctx)
	must(t, err)
	if !st.Held {
		t.Errorf("the hold ended with the context: %+v", st)
	}
	must(t, local.Route(ctx, target("m", b)))
}

func certificate(t *testing.T) (cert, key []byte, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	must(t, err)
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), pool
}
