/** Fails to compile unless either type may stand for the other. */
export declare function interchangeable<A extends B, B extends Mutual, Mutual = A>(): void;

// The test's own test: one direction alone is not enough, in either order.
interchangeable<string | number, number | string>();
// @ts-expect-error a string may stand for the union, the union not for a string
interchangeable<string, string | number>();
// @ts-expect-error the same, the other way round
interchangeable<string | number, string>();
