package sorteo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

// TLS names the files, in PEM, with which both ends prove who they are. They are read anew at each connect.
type TLS struct {
	CAFile   string // the authorities whose certificate the server must have; needed
	CertFile string // the agency's own certificate, for a server that takes them, or empty
	KeyFile  string // its key, or empty
}

const alpn = "sorteo/1"

// tokenPattern has no anchors, so that it also finds a token that a peer sends back.
var tokenPattern = regexp.MustCompile("sorteo_[0-9a-f]{16}_[0-9a-f]{64}")

// readToken returns the token of a file, or an *IdentityError, which never shows what the file holds.
func readToken(path string) (string, error) {
	content, err := readSecret(path)
	if err != nil {
		return "", err
	}
	if bytes.HasSuffix(content, []byte("\n")) {
		content = bytes.TrimSuffix(content[:len(content)-1], []byte("\r"))
	}
	token := string(content)
	switch {
	case token == "":
		return "", &IdentityError{path, "is empty"}
	case strings.Contains(token, "\n"):
		return "", &IdentityError{path, "holds more than one token: a line too many"}
	case len(tokenPattern.FindString(token)) != len(token):
		return "", &IdentityError{path, "holds no token: one is sorteo_, 16 hexadecimal digits, _ and 64 more"}
	}
	return token, nil
}

// readSecret reads a file that nobody else can read or change.
func readSecret(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fileError(path, err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && isExposed(mode, ownedByRoot(info)) {
		return nil, &IdentityError{path, fmt.Sprintf("has the mode %04o, so others can read or change it: chmod 600 %s", mode, path)}
	}
	content, err := io.ReadAll(io.LimitReader(file, secretBytesMax))
	if err != nil {
		return nil, fileError(path, err)
	}
	return content, nil
}

// isExposed tells whether others can read or change a file. Its group may read it if root owns it, as for PostgreSQL.
func isExposed(mode os.FileMode, ownedByRoot bool) bool {
	if ownedByRoot {
		mode &^= 0o040
	}
	return mode&0o077 != 0
}

// fileError keeps the cause alone of an error that repeats the path.
func fileError(path string, err error) error {
	var failed *os.PathError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return &IdentityError{path, err.Error()}
}

// config reads the files.
func (t *TLS) config(server string) (*tls.Config, error) {
	if t.CAFile == "" || (t.CertFile == "") != (t.KeyFile == "") {
		return nil, &IdentityError{Problem: "TLS needs CAFile; CertFile and KeyFile need each other"}
	}
	config := &tls.Config{
		ServerName: server,
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		RootCAs:    x509.NewCertPool(),
	}
	authorities, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fileError(t.CAFile, err)
	}
	if !config.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, &IdentityError{t.CAFile, "holds no certificate"}
	}
	if t.CertFile == "" && t.KeyFile == "" {
		return config, nil
	}
	key, err := readSecret(t.KeyFile)
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile(t.CertFile)
	if err != nil {
		return nil, fileError(t.CertFile, err)
	}
	pair, err := tls.X509KeyPair(own, key)
	if err != nil {
		return nil, &IdentityError{t.CertFile, fmt.Sprintf("cannot be used with the key %s: %v", t.KeyFile, err)}
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// dial connects, over TLS unless t is nil.
func (t *TLS) dial(ctx context.Context, address string) (net.Conn, error) {
	var config *tls.Config
	if t != nil {
		server, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, &lostError{err}
		}
		if config, err = t.config(server); err != nil {
			return nil, err
		}
	}
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &lostError{err}
	}
	if t == nil {
		return connection, nil
	}
	return t.handshake(ctx, connection, config)
}

// handshake makes a connection one over TLS. There is no way back to plain text.
func (t *TLS) handshake(ctx context.Context, plain net.Conn, config *tls.Config) (net.Conn, error) {
	connection := tls.Client(plain, config)
	err := connection.HandshakeContext(ctx)
	if err == nil {
		return connection, nil
	}
	plain.Close()
	var (
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &name), errors.As(err, &invalid), errors.As(err, &unknown):
		return nil, &UntrustedError{Server: config.ServerName, CAFile: t.CAFile, Err: err}
	case errors.As(err, &record):
		return nil, &ProtocolError{Problem: "the server answered in plain text: TLS may be off there"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return nil, &lostError{fmt.Errorf("the server closed the connection in the TLS handshake, TLS may be off there: %w", err)}
	case ctx.Err() != nil:
		return nil, &lostError{fmt.Errorf("no TLS handshake in time: %w", err)}
	case t.refusal(err) != nil:
		return nil, t.refusal(err)
	}
	return nil, &ProtocolError{Problem: fmt.Sprintf("no TLS 1.3 with the server: %v", err)}
}

// refusal returns an *IdentityError if the server refused the client's certificate. It can do so after the handshake,
// in place of its first reply. The type of an alert is not exported before Go 1.21.
func (t *TLS) refusal(err error) error {
	var alert *net.OpError
	if t == nil || !errors.As(err, &alert) || alert.Op != "remote error" {
		return nil
	}
	text := alert.Err.Error()
	if !strings.Contains(text, "certificate") && !strings.Contains(text, "access denied") {
		return nil
	}
	if t.CertFile == "" {
		return &IdentityError{Problem: "the server demands a certificate: " + text}
	}
	return &IdentityError{t.CertFile, "was refused by the server: " + text}
}
