"""Fast feedforward layers: what walks trees and gathers the rows of the visited nodes."""
