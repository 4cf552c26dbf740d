package etcdtest

import "net"

// A Path is a way of its own from some client to all members, for a node that
// is to be cut off from etcd while others are not.
type Path struct {
	cluster *Cluster
	gates   *gates
	proxies []*proxy
}

// Path makes a way to all members. It ends with the cluster.
func (c *Cluster) Path() (*Path, error) {
	p := &Path{cluster: c, gates: newGates()}
	for i, m := range c.members {
		px, err := newProxy(c.ip(i), i, p.gates, func(net.Addr, net.Addr) (int, error) { return clients, nil })
		if err != nil {
			p.close()
			return nil, err
		}
		px.aim(m.client)
		p.proxies = append(p.proxies, px)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paths = append(c.paths, p)
	return p, nil
}

// Endpoints are the members' client URLs on this path, in order.
func (p *Path) Endpoints() []string {
	var all []string
	for _, px := range p.proxies {
		all = append(all, p.cluster.scheme()+px.addr())
	}
	return all
}

// Cut holds back everything on this path.
func (p *Path) Cut() { p.set(true) }

// Heal lets everything through again.
func (p *Path) Heal() { p.set(false) }

func (p *Path) set(shut bool) {
	for i := range p.proxies {
		p.gates.set(shut, link{clients, i}, link{i, clients})
	}
}

func (p *Path) close() {
	for _, px := range p.proxies {
		px.close()
	}
}
