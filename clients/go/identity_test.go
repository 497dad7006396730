package sorteo

import (
	"bytes"
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
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var (
	oldToken = "sorteo_" + strings.Repeat("0a", 8) + "_" + strings.Repeat("1b", 32)
	newToken = "sorteo_" + strings.Repeat("2c", 8) + "_" + strings.Repeat("3d", 32)
)

// writeSecret writes a file that nobody else can read.
func writeSecret(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// withToken returns a client with a token.
func withToken(t *testing.T, address string) *Client {
	client := newClient(address)
	client.TokenFile = writeSecret(t, filepath.Join(t.TempDir(), "token"), oldToken+"\n")
	return client
}

// expectNoSecret looks for tokens in every form in which a value can be printed.
func expectNoSecret(t *testing.T, values ...any) {
	t.Helper()
	for _, value := range values {
		shown := fmt.Sprintf("%v %+v %#v", value, value, value)
		if strings.Contains(shown, oldToken[24:]) || strings.Contains(shown, newToken[24:]) {
			t.Errorf("a token is shown by %T", value)
		}
	}
}

func TestTokenFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for _, end := range []string{"", "\n", "\r\n"} {
		if token, err := readToken(writeSecret(t, path, oldToken+end)); token != oldToken || err != nil {
			t.Error(err)
		}
	}
	for content, problem := range map[string]string{
		"":                                "is empty",
		"\n":                              "is empty",
		oldToken + "\n\n":                 "a line too many",
		oldToken + "\n" + newToken + "\n": "a line too many",
		oldToken[1:]:                      "holds no token",
		oldToken + " ":                    "holds no token",
		oldToken + newToken:               "holds no token",
		strings.ToUpper(oldToken):         "holds no token",
		strings.Repeat("\xff", 1<<17):     "holds no token",
	} {
		_, err := readToken(writeSecret(t, path, content))
		expectIdentityError(t, err, path+": ", problem)
	}
	_, err := readToken(path + "s")
	expectIdentityError(t, err, path+"s: ", "no such file")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = readToken(path)
	expectIdentityError(t, err, path+": has the mode 0644, ", "chmod 600 "+path)
}

func expectIdentityError(t *testing.T, err error, texts ...string) {
	t.Helper()
	var identity *IdentityError
	if !errors.As(err, &identity) || strings.Contains(err.Error(), "\n") {
		t.Error(err)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v: without %q", err, text)
		}
	}
	expectNoSecret(t, err)
}

func TestExposedFiles(t *testing.T) {
	for mode, exposed := range map[os.FileMode][2]bool{ // for anybody as the owner, and for root
		0o600: {false, false},
		0o400: {false, false},
		0o640: {true, false},
		0o620: {true, true},
		0o660: {true, true},
		0o644: {true, true},
		0o601: {true, true},
	} {
		if got := [2]bool{isExposed(mode, false), isExposed(mode, true)}; got != exposed {
			t.Errorf("%04o: %v", mode, got)
		}
	}
}

// TestTokenIsReplaced has a token that is revoked in the middle of an upload, after the file has the next one.
func TestTokenIsReplaced(t *testing.T) {
	var tokens []string
	client := withToken(t, "")
	pipelined := make(map[net.Conn]bool)
	fake := startFake(t, nil)
	fake.intercept = func(request string, connection net.Conn) bool {
		fields := strings.Split(request, "|")
		switch {
		case fields[0] == "AUTH":
			tokens = append(tokens, request)
			// The reply is sent when the next request has come: the client must not wait for it.
			return true
		case !pipelined[connection]:
			pipelined[connection] = true
			write(connection, "ACK|OK")
		case fields[0] == "BATCH" && fields[4] == "20" && len(tokens) == 1:
			writeSecret(t, client.TokenFile, newToken)
			connection.Close()
		}
		return false
	}
	client.Address = fake.address
	retries := 0
	client.Observer.Retrying = func(err error, _ time.Duration) { retries++; expectNoSecret(t, err) }
	if _, err := testDraw(client).Upload(ctx, someBets(95)); err != nil {
		t.Fatal(err)
	}
	expected := []string{"AUTH|1|" + oldToken, "AUTH|1|" + newToken}
	if !reflect.DeepEqual(tokens, expected) || retries != 1 || len(fake.stored()) != 95 {
		t.Error(len(tokens), "tokens", retries, "retries")
	}
	expectNoSecret(t, client, *client)
}

// TestRefusalsOfTokens has the reply to each AUTH in turn; behind the last one, tokens are taken.
func TestRefusalsOfTokens(t *testing.T) {
	for name, c := range map[string]struct {
		replies  []string
		replaced bool
		expected error // or nil for success
		text     string
		attempts int
	}{
		"refused":        {[]string{"ACK|ERR|unauthorized"}, false, ErrUnauthorized, "not valid for this agency", 1},
		"replaced":       {[]string{"ACK|ERR|unauthorized"}, true, nil, "", 2},
		"busy":           {[]string{"ACK|ERR|busy", "ACK|ERR|busy"}, false, nil, "", 3},
		"a later reason": {[]string{"ACK|ERR|moon_phase"}, false, &RefusedError{Reason: "moon_phase"}, "moon_phase", 1},
		"forbidden":      {[]string{"ACK|ERR|forbidden"}, false, ErrForbidden, "another agency's", 1},
		"off":            {[]string{"ACK|ERR|unknown"}, false, &ProtocolError{}, "auth is off", 1},
		"sent back":      {[]string{"ACK|" + oldToken}, false, &ProtocolError{}, "sorteo_...", 1},
		"in a refusal":   {[]string{"ACK|ERR|reason|" + oldToken}, false, &RefusedError{}, "sorteo_...", 1},
	} {
		c := c
		t.Run(name, func(t *testing.T) {
			client, attempts := withToken(t, ""), 0
			fake := startFake(t, func(request string, connection net.Conn) bool {
				if !strings.HasPrefix(request, "AUTH|") {
					return attempts <= len(c.replies)
				}
				attempts++
				if attempts > len(c.replies) {
					return false
				}
				if c.replaced {
					writeSecret(t, client.TokenFile, newToken)
				}
				write(connection, c.replies[attempts-1])
				return true
			})
			client.Address = fake.address
			_, err := client.Status(ctx)
			if fake.connected() != c.attempts {
				t.Errorf("%d attempts", fake.connected())
			}
			if c.expected == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !errors.Is(err, c.expected) && reflect.TypeOf(err) != reflect.TypeOf(c.expected) {
				t.Fatal(err)
			}
			if !strings.Contains(err.Error(), c.text) {
				t.Error(err)
			}
			expectNoSecret(t, err)
		})
	}
}

func TestTokenIsDemanded(t *testing.T) {
	fake := startFake(t, func(request string, connection net.Conn) bool {
		write(connection, "HELLO|ERR|unauthorized")
		return true
	})
	if _, err := newClient(fake.address).Status(ctx); !errors.Is(err, ErrUnauthorized) || fake.connected() != 1 {
		t.Error(err)
	}
}

func TestForbiddenIsFinal(t *testing.T) {
	fake := startFake(t, func(request string, connection net.Conn) bool {
		if strings.HasPrefix(request, "RESUME") {
			write(connection, "RESUME|ERR|forbidden")
			return true
		}
		return false
	})
	_, err := testDraw(withToken(t, fake.address)).Upload(ctx, someBets(1))
	if !errors.Is(err, ErrForbidden) || fake.connected() != 1 {
		t.Error(err)
	}
}

func TestBadTokenFileEndsBeforeConnecting(t *testing.T) {
	fake := startFake(t, nil)
	client := newClient(fake.address)
	client.TokenFile = filepath.Join(t.TempDir(), "token")
	_, err := client.Status(ctx)
	expectIdentityError(t, err, "no such file")
	if fake.connected() != 0 {
		t.Error("the client connected")
	}
}

// certificates is an authority, and what it signed, in the files NAME.pem and NAME.key of a folder.
type certificates struct {
	t         *testing.T
	folder    string
	authority *x509.Certificate
	key       *ecdsa.PrivateKey
}

func newCertificates(t *testing.T) *certificates {
	c := &certificates{t: t, folder: t.TempDir()}
	local := []net.IP{net.IPv4(127, 0, 0, 1)}
	c.sign("other", x509.Certificate{IsCA: true, BasicConstraintsValid: true})
	c.authority, c.key = c.sign("ca", x509.Certificate{IsCA: true, BasicConstraintsValid: true})
	c.sign("server", x509.Certificate{IPAddresses: local, DNSNames: []string{"localhost"}})
	c.sign("expired", x509.Certificate{IPAddresses: local, NotAfter: time.Now().Add(-time.Minute)})
	c.sign("stranger", x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 2)}, DNSNames: []string{"elsewhere"}})
	c.sign("agency", x509.Certificate{URIs: []*url.URL{{Scheme: "urn", Opaque: "sorteo:agency:1"}}})
	return c
}

// sign has the authority sign a certificate; before there is one, the certificate signs itself.
func (c *certificates) sign(name string, template x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c.check(err)
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore = time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := c.authority, c.key
	if template.IsCA {
		parent, signer = &template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, &key.PublicKey, signer)
	c.check(err)
	certificate, err := x509.ParseCertificate(der)
	c.check(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	c.check(err)
	writeSecret(c.t, c.path(name+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeSecret(c.t, c.path(name+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return certificate, key
}

func (c *certificates) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *certificates) path(file string) string { return filepath.Join(c.folder, file) }

// files returns what a client is given; own may be empty.
func (c *certificates) files(ca, own string) *TLS {
	files := &TLS{CAFile: c.path(ca + ".pem")}
	if own != "" {
		files.CertFile, files.KeyFile = c.path(own+".pem"), c.path(own+".key")
	}
	return files
}

// listen is that of a server with the given certificate.
func (c *certificates) listen(name string, change func(*tls.Config)) net.Listener {
	pair, err := tls.LoadX509KeyPair(c.path(name+".pem"), c.path(name+".key"))
	c.check(err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{alpn}, ClientCAs: x509.NewCertPool()}
	config.ClientCAs.AddCert(c.authority)
	if change != nil {
		change(config)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	c.check(err)
	return listener
}

func demandCertificate(config *tls.Config) { config.ClientAuth = tls.RequireAndVerifyClientCert }

func TestUploadOverTLS(t *testing.T) {
	c := newCertificates(t)
	var state tls.ConnectionState
	fake := startFakeOn(t, c.listen("server", demandCertificate), func(_ string, connection net.Conn) bool {
		state = connection.(*tls.Conn).ConnectionState()
		return false
	})
	bets := someBets(10000)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		_, port, _ := net.SplitHostPort(fake.address)
		client := withToken(t, net.JoinHostPort(host, port))
		client.TLS = c.files("ca", "agency")
		client.Observer.Retrying = func(err error, _ time.Duration) { t.Error("a retry after", err) }
		if _, err := testDraw(client).Upload(ctx, bets); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(fake.stored(), canonical(bets)) {
		t.Error("other rows were stored")
	}
	if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "sorteo/1" || len(state.PeerCertificates) != 1 {
		t.Errorf("version %x, %q, %d certificates", state.Version, state.NegotiatedProtocol, len(state.PeerCertificates))
	}
}

// TestTokenOfTheRealServer replaces and revokes a token while an upload goes on.
func TestTokenOfTheRealServer(t *testing.T) {
	c := newCertificates(t)
	server := startServer(t, "1", "--tls", "required", "--auth", "required", "--tls-cert", c.path("server.pem"),
		"--tls-key", c.path("server.key"))
	old := server.run("token", "add", "1")
	client := newClient(server.address)
	client.TokenFile, client.TLS = writeSecret(t, c.path("token"), old), c.files("ca", "")
	client.BatchRows = 100
	isReplaced, retries := false, 0
	client.Observer.Stored = func(rows, _ int64) {
		if isReplaced || rows < 200 {
			return
		}
		isReplaced = true
		c.check(os.Rename(writeSecret(t, c.path("new"), server.run("token", "add", "1")), client.TokenFile))
		server.run("token", "revoke", strings.Split(old, "_")[1])
		eventually(t, "the connection ends", func() bool { return strings.Contains(server.log(), "error: auth_ended") })
	}
	client.Observer.Retrying = func(error, time.Duration) { retries++ }
	draw, err := client.NewestDraw(ctx)
	c.check(err)
	bets := someBets(5000)
	if _, err := draw.Upload(ctx, bets); err != nil || retries != 1 {
		t.Fatal(retries, "retries,", err)
	}
	c.check(draw.Done(ctx, int64(len(bets))))
}

func TestUntrustedServers(t *testing.T) {
	c := newCertificates(t)
	for _, server := range []struct{ certificate, ca, host, text string }{
		{"server", "other", "127.0.0.1", "unknown authority"},
		{"expired", "ca", "127.0.0.1", "expired"},
		{"stranger", "ca", "127.0.0.1", "not 127.0.0.1"},
		{"stranger", "ca", "localhost", "not localhost"},
	} {
		fake := startFakeOn(t, c.listen(server.certificate, nil), nil)
		_, port, _ := net.SplitHostPort(fake.address)
		client := newClient(net.JoinHostPort(server.host, port))
		client.TLS, client.GiveUpAfter = c.files(server.ca, ""), 5*time.Second
		_, err := client.Status(ctx)
		var untrusted *UntrustedError
		if !errors.As(err, &untrusted) || !strings.Contains(err.Error(), server.text) || strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
		if fake.connected() != 1 {
			t.Errorf("%s: %d attempts", server.text, fake.connected())
		}
	}
}

func TestRefusedCertificates(t *testing.T) {
	c := newCertificates(t)
	for own, text := range map[string]string{"": "demands a certificate", "other": "other.pem: was refused"} {
		fake := startFakeOn(t, c.listen("server", demandCertificate), nil)
		client := newClient(fake.address)
		client.TLS, client.GiveUpAfter = c.files("ca", own), 5*time.Second
		_, err := client.Status(ctx)
		expectIdentityError(t, err, text)
		if fake.connected() != 1 {
			t.Errorf("%s: %d attempts", text, fake.connected())
		}
	}
}

func TestOlderTLSIsNotUsed(t *testing.T) {
	c := newCertificates(t)
	fake := startFakeOn(t, c.listen("server", func(config *tls.Config) { config.MaxVersion = tls.VersionTLS12 }), nil)
	client := newClient(fake.address)
	client.TLS = c.files("ca", "")
	_, err := client.Status(ctx)
	var wrong *ProtocolError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "no TLS 1.3") {
		t.Error(err)
	}
}

// TestServersWithoutTLS has servers that do something else with the beginning of a handshake.
func TestServersWithoutTLS(t *testing.T) {
	c := newCertificates(t)
	for name, server := range map[string]struct {
		handle   func(*net.TCPConn)
		text     string
		isFinal  bool
		expected any
	}{
		"closes": {func(*net.TCPConn) {}, "TLS may be off there", false, new(*UnreachableError)},
		"resets": {func(c *net.TCPConn) { c.SetLinger(0) }, "TLS may be off there", false, new(*UnreachableError)},
		"silent": {func(c *net.TCPConn) { io.Copy(io.Discard, c) }, "no TLS handshake in time", false, new(*UnreachableError)},
		"HTTP":   {func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, "plain text", true, new(*ProtocolError)},
		"framed": {func(c *net.TCPConn) { write(c, "ACK|ERR|bad_frame") }, "plain text", true, new(*ProtocolError)},
	} {
		server := server
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			c.check(err)
			defer listener.Close()
			attempts := int32(0)
			go func() {
				for {
					connection, err := listener.Accept()
					if err != nil {
						return
					}
					atomic.AddInt32(&attempts, 1)
					first := make([]byte, 1<<16)
					if n, _ := connection.Read(first); n == 0 || first[0] != 0x16 {
						t.Error("not a handshake")
					}
					server.handle(connection.(*net.TCPConn))
					connection.Close()
				}
			}()
			client := withToken(t, listener.Addr().String())
			client.TLS, client.GiveUpAfter, client.ConnectTimeout = c.files("ca", ""), time.Second/2, time.Second/10
			_, err = client.Status(ctx)
			if !errors.As(err, server.expected) || !strings.Contains(err.Error(), server.text) {
				t.Error(err)
			}
			if (atomic.LoadInt32(&attempts) == 1) != server.isFinal {
				t.Errorf("%d attempts", attempts)
			}
		})
	}
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	c := newCertificates(t)
	ca, certificate, key := c.path("ca.pem"), c.path("agency.pem"), c.path("agency.key")
	nonsense := writeSecret(t, c.path("nonsense"), "nonsense")
	content, err := os.ReadFile(key)
	c.check(err)
	readable := writeSecret(t, c.path("readable"), string(content))
	c.check(os.Chmod(readable, 0o640))
	if os.Getuid() == 0 {
		c.check(os.Chmod(readable, 0o644))
	}
	fake := startFake(t, nil)
	for _, test := range []struct {
		files TLS
		texts []string
	}{
		{TLS{}, []string{"needs CAFile"}},
		{TLS{CAFile: "nowhere"}, []string{"nowhere: no such file"}},
		{TLS{CAFile: nonsense}, []string{nonsense + ": holds no certificate"}},
		{TLS{ca, "nowhere", key}, []string{"nowhere: no such file"}},
		{TLS{ca, certificate, "nowhere"}, []string{"nowhere: no such file"}},
		{TLS{ca, certificate, ""}, []string{"need each other"}},
		{TLS{ca, "", key}, []string{"need each other"}},
		{TLS{ca, certificate, nonsense}, []string{certificate, nonsense}},
		{TLS{ca, certificate, c.path("ca.key")}, []string{"does not match"}},
		{TLS{ca, certificate, readable}, []string{"has the mode 06", "chmod 600 " + readable}},
	} {
		client := newClient(fake.address)
		client.TLS, client.GiveUpAfter = &test.files, 5*time.Second
		_, err := client.Status(ctx)
		expectIdentityError(t, err, test.texts...)
		if bytes.Contains([]byte(fmt.Sprintf("%v %#v", err, err)), content[40:60]) {
			t.Error("a key is shown")
		}
	}
	if fake.connected() != 0 {
		t.Error("the client connected")
	}
}

// TestAgencyWithIdentity is about the flags of the example.
func TestAgencyWithIdentity(t *testing.T) {
	c := newCertificates(t)
	tokens := int32(0)
	fake := startFakeOn(t, c.listen("server", demandCertificate), func(request string, _ net.Conn) bool {
		if request == "AUTH|1|"+oldToken {
			atomic.AddInt32(&tokens, 1)
		}
		return false
	})
	token := writeSecret(t, c.path("token"), oldToken)
	file := writeFile(t, "Ana,Paz,7,1999-03-17,7574\n")
	deadline, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	run := func(flags ...string) (string, string) {
		arguments := append([]string{"run", "./cmd/agency", "-server", fake.address, "-agency", "1", "-file", string(file)}, flags...)
		command := exec.CommandContext(deadline, "go", arguments...)
		var output, problem bytes.Buffer
		command.Stdout, command.Stderr = &output, &problem
		command.Run()
		return output.String(), problem.String()
	}
	ca, own := []string{"-token-file", token, "-tls", "-tls-ca", c.path("ca.pem")}, []string{"-tls-cert", c.path("agency.pem")}
	all := append(append(append([]string{}, ca...), own...), "-tls-key", c.path("agency.key"))
	if output, problem := run(all...); output != "1\n2\n3\n" || atomic.LoadInt32(&tokens) == 0 {
		t.Error(output, problem)
	}
	for _, wrong := range [][]string{ca[:3], ca[3:], append(append([]string{}, ca...), own...)} {
		if _, problem := run(wrong...); !strings.Contains(problem, "need each other") {
			t.Error(wrong, problem)
		}
	}
}
