package apiserver

import (
	"net/http"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// updateCluster replaces the swarm's settings. What of them the authority has to know is written in the same commit.
func (s *Server) updateCluster(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	p, err := s.replacing(w, r, d)
	if err != nil {
		return err
	}
	obj := p.obj.(*v1.Cluster)
	inheritCluster(obj, p.old.(*v1.Cluster))
	if err := check(obj); err != nil {
		return err
	}
	return p.commit(w, r, d, nil, func(snapshot *store.Snapshot) (change, error) {
		return s.settings(snapshot, d, obj, p.old.GetMeta().ID)
	})
}

// inheritCluster takes from the old settings what an update need not say, because it cannot change.
func inheritCluster(obj, old *v1.Cluster) {
	if obj.Meta.Name == "" {
		obj.Meta.Name = old.Meta.Name
	}
	if obj.Spec == nil {
		return
	}
	was := lasting(old)
	if obj.Spec.GatewayPool == "" {
		obj.Spec.GatewayPool = was.GatewayPool
	}
	if len(obj.Spec.DefaultAddrPool) == 0 {
		obj.Spec.DefaultAddrPool = was.DefaultAddrPool
	}
	if obj.Spec.SubnetSize == 0 {
		obj.Spec.SubnetSize = was.SubnetSize
	}
	if obj.Spec.DataPathPort == 0 {
		obj.Spec.DataPathPort = was.DataPathPort
	}
}

// lasting is a copy of the settings with what an earlier version left out.
func lasting(c *v1.Cluster) *v1.ClusterSpec {
	spec := *c.Spec
	v1.Default(&v1.Cluster{Meta: c.Meta, Spec: &spec})
	return &spec
}

// checkClusterChange refuses to change what addresses and ports in use were made from.
func checkClusterChange(old, obj *v1.Cluster) error {
	was, is := lasting(old), obj.Spec
	var errs v1.FieldErrors
	never := func(same bool, field, want string) {
		if !same {
			errs = append(errs, v1.FieldError{Field: field, Message: "cannot change after the swarm was made, because what is in use is from it: want " + want + ", or leave it out"})
		}
	}
	never(was.GatewayPool == is.GatewayPool, "spec.gatewayPool", was.GatewayPool)
	never(slices.Equal(was.DefaultAddrPool, is.DefaultAddrPool), "spec.defaultAddrPool", quoted(was.DefaultAddrPool))
	never(was.SubnetSize == is.SubnetSize, "spec.subnetSize", number(was.SubnetSize))
	never(was.DataPathPort == is.DataPathPort, "spec.dataPathPort", number(was.DataPathPort))
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// settings decides what it takes to replace the swarm's settings.
func (s *Server) settings(snapshot *store.Snapshot, d v1.Descriptor, obj *v1.Cluster, id string) (change, error) {
	c, err := s.replacement(snapshot, d, obj, id)
	if err != nil || len(c.ops) == 0 {
		return c, err
	}
	old, _ := store.Get(snapshot, v1.Clusters, id)
	external, err := equalJSON(old.Spec.ExternalCAs, obj.Spec.ExternalCAs)
	if err != nil {
		return c, err
	}
	if external && old.Spec.AutoLock == obj.Spec.AutoLock {
		return c, nil
	}
	a, err := authorityOf(snapshot)
	if err != nil {
		return c, err
	}
	spec := *a.Spec
	if !external {
		if err := setExternal(&spec.CA, obj.Spec.ExternalCAs); err != nil {
			return c, err
		}
	}
	switch {
	case !obj.Spec.AutoLock:
		spec.UnlockKey = ""
	case spec.UnlockKey == "":
		spec.UnlockKey = ca.NewUnlockKey()
	}
	c.ops = append(c.ops, authorityOp(a, spec, s.now()))
	return c, nil
}

// setExternal makes external CAs sign under the root that there is: those that are for another have no say.
func setExternal(c *v1.CertificateAuthority, external []v1.ExternalCA) error {
	c.External = nil
	for _, e := range external {
		if e.CACert == "" || sameRoot([]byte(e.CACert), c.Cert) {
			c.External = append(c.External, e)
		}
	}
	if len(c.External) == 0 && len(c.Key) == 0 {
		return v1.FieldErrors{{Field: "spec.externalCAs", Message: "must name a CA for the present root, because the swarm does not have that root's key"}}
	}
	return nil
}
