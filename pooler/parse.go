package pooler

import (
	"fmt"
	"net/netip"
	"strconv"
)

// ParseIni reads a configuration file as PgBouncer does, without following its includes and without asking whether
// it knows the settings. Of what is there twice the last counts. Comments are lost: to change the target in a file
// that somebody else wrote, use [Rewrite]. Errors wrap ErrInvalid, name the line and never hold its content.
func ParseIni(file []byte) (Ini, error) {
	items, err := scan(file)
	if err != nil {
		return Ini{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var i Ini
	for _, it := range items {
		text := string(file[it.start:it.end])
		switch it.kind {
		case include:
			i.Includes = append(i.Includes, text)
		case pair:
			if err := i.add(it.section, it.key, text); err != nil {
				return Ini{}, fmt.Errorf("%w: line %d: %w", ErrInvalid, it.line, err)
			}
		}
	}
	return i, nil
}

func (i *Ini) add(section, key, text string) error {
	switch section {
	case "pgbouncer":
		if key == "peer_id" {
			id, err := strconv.Atoi(text)
			if err != nil || id < 0 || id > maxPeer {
				return fmt.Errorf("peer_id is not 0 to %d", maxPeer)
			}
			i.PeerID = id
			return nil
		}
		if i.Settings == nil {
			i.Settings = Params{}
		}
		i.Settings[key] = text
		return nil
	case "databases", "users", "peers":
	default:
		return fmt.Errorf("a section that PgBouncer does not know")
	}
	list, err := scanParams(text)
	if err != nil {
		return fmt.Errorf("[%s] %s: %w", section, key, err)
	}
	params := Params{}
	for _, p := range list {
		params[p.key] = p.value
	}
	switch section {
	case "databases":
		i.Databases = setEntry(i.Databases, Entry{key, params})
	case "users":
		i.Users = setEntry(i.Users, Entry{key, params})
	case "peers":
		return i.addPeer(key, params)
	}
	return nil
}

func (i *Ini) addPeer(key string, params Params) error {
	id, err := strconv.Atoi(key)
	if err != nil || id < 1 || id > maxPeer {
		return fmt.Errorf("[peers]: the name is not 1 to %d", maxPeer)
	}
	addr, err := netip.ParseAddr(params["host"])
	if err != nil {
		return fmt.Errorf("[peers] %d: the host is not a literal address", id)
	}
	port, size := uint64(6432), 0
	if text, ok := params["port"]; ok {
		if port, err = strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
			return fmt.Errorf("[peers] %d: the port is not a port", id)
		}
	}
	if text, ok := params["pool_size"]; ok {
		if size, err = strconv.Atoi(text); err != nil || size < 0 {
			return fmt.Errorf("[peers] %d: pool_size is not a number", id)
		}
	}
	p := Peer{ID: id, Addr: netip.AddrPortFrom(addr, uint16(port)), PoolSize: size}
	for n := range i.Peers {
		if i.Peers[n].ID == id {
			i.Peers[n] = p
			return nil
		}
	}
	i.Peers = append(i.Peers, p)
	return nil
}

func setEntry(entries []Entry, e Entry) []Entry {
	for n := range entries {
		if entries[n].Name == e.Name {
			entries[n] = e
			return entries
		}
	}
	return append(entries, e)
}
