package apiserver

// ImagePeers and InTurn are who is asked for an image.
var (
	ImagePeers = imagePeers
	InTurn     = inTurn
)

// Route is a row of the table of routes, for the test that asks at every door.
type Route struct {
	Method, Path   string
	Declared       bool // who may use it
	Stream, Listed bool // it answers for long; it is a list that can be watched
}

// Routes is the table of routes.
func (s *Server) Routes() []Route {
	table := s.table()
	routes := make([]Route, len(table))
	for i := range table {
		rt := &table[i]
		routes[i] = Route{rt.method, rt.path, rt.may != 0, rt.stream, false}
	}
	return routes
}
